"""Confinement of a session to one project: foreign rows do not exist for it, and what it adds is the project's.

Requests are confined (`Database.confined`), workers and reconcilers are not. A table takes part by the mixin
`store.models.project.InProject`; rows without one (events, metrics, logs, completions, attempts) are reached by the id
of a run or job, which is looked up first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from store.models.project import DEFAULT_PROJECT_ID, PROJECT_OPTION, InProject

_IS_RELEASED = "lco_released"


def confine(session: Session, project_id: UUID) -> None:
    """Confines the session's transaction to a project, whatever it was confined to before."""
    session.info |= {PROJECT_OPTION: project_id, _IS_RELEASED: False}
    session.connection().execution_options(**{PROJECT_OPTION: project_id})


def release(session: Session) -> None:
    """Lets the session see the rows of all projects; what it adds is still its project's."""
    session.info[_IS_RELEASED] = True


@contextmanager
def released(session: Session) -> Iterator[None]:
    """Lets the session see the rows of all projects for the time of a `with`."""
    before = session.info.get(_IS_RELEASED, False)
    session.info[_IS_RELEASED] = True
    try:
        yield
    finally:
        session.info[_IS_RELEASED] = before


def project_of(session: Session) -> UUID:
    """The project to which rows that the session adds belong: its own, or the default one where it has none."""
    project_id: UUID = session.info.get(PROJECT_OPTION, DEFAULT_PROJECT_ID)
    return project_id


@lru_cache(maxsize=256)
def _only(project_id: UUID) -> Any:
    return with_loader_criteria(InProject, lambda table: table.project_id == project_id, include_aliases=True)


@event.listens_for(Session, "do_orm_execute")
def _leave_out_foreign_rows(state: ORMExecuteState) -> None:
    project_id = state.session.info.get(PROJECT_OPTION)
    if project_id is None or state.session.info.get(_IS_RELEASED):
        return
    if not state.is_insert and not state.is_column_load:
        state.statement = state.statement.options(_only(project_id))
