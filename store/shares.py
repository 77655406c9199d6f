"""Which run is next: fair shares between projects, within their quotas.

Among runs of equal priority those of the project that holds the fewest GPUs come first, then those of the one with the
fewest live runs; within a project the one that waits longest. A run that would exceed a quota of its project is passed
over, whatever its priority. What a project holds is counted when a worker asks.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, text
from sqlalchemy.orm import Session, aliased

from store.database import now_expression
from store.models.project import Project
from store.models.run import IS_LIVE, Run
from store.states import Desired, RunState

_First = aliased(Run)  # made once: an alias costs more than the query that it is for
_Held = (
    select(Run.project_id, func.sum(Run.num_gpus).label("gpus"), func.count().label("runs"))
    .where(text(IS_LIVE))
    .group_by(Run.project_id)
    .subquery("held")
)
_GPUS, _RUNS = func.coalesce(_Held.c.gpus, 0), func.coalesce(_Held.c.runs, 0)
_IS_BOUND = or_(Project.max_running_runs.is_not(None), Project.max_gpu_slots.is_not(None))


class Line:
    """The claimable runs that a worker with some queues and free GPUs can serve."""

    def __init__(self, session: Session, *, queues: Sequence[str], max_gpus: int) -> None:
        self._queues, self._max_gpus, self._now = list(queues), max_gpus, now_expression(session)

    def heads(self) -> Select[Any]:
        """The first run of each project and queue, in order: one look into the index for each, however many wait."""
        firsts = [
            select(_First.id)
            .where(_First.project_id == Project.id, _First.queue == queue, *self._is_claimable(_First))
            .order_by(_First.priority.desc(), _First.available_at, _First.id)
            .limit(1)
            .correlate(Project, _Held)
            .scalar_subquery()
            for queue in self._queues
        ]
        return self._ordered(Run.id.in_(firsts))

    def all(self) -> Select[Any]:
        """All of them, in order."""
        is_next = (Run.project_id == Project.id, Run.queue.in_(self._queues), *self._is_claimable(Run))
        return self._ordered(*is_next)

    def _is_claimable(self, run: Any) -> tuple[ColumnElement[bool], ...]:
        return (
            # Part of the statement's text: as the parameter of a prepared one it would rule the partial index out.
            run.state == literal(str(RunState.QUEUED), literal_execute=True),
            run.desired == Desired.RUN,
            run.num_gpus <= self._max_gpus,
            run.available_at <= self._now,
            or_(Project.max_gpu_slots.is_(None), run.num_gpus == 0, _GPUS + run.num_gpus <= Project.max_gpu_slots),
        )

    def _ordered(self, *is_wanted: ColumnElement[bool]) -> Select[Any]:
        return (
            select(Run.id, Run.labels, Run.project_id, Run.num_gpus, _IS_BOUND.label("is_bound"))
            .select_from(Project)
            .outerjoin(_Held, _Held.c.project_id == Project.id)
            .join(Run, and_(*is_wanted))
            .where(or_(Project.max_running_runs.is_(None), Project.max_running_runs > _RUNS))
            .order_by(Run.priority.desc(), _GPUS, _RUNS, Run.available_at, Run.id)
        )


def has_room(session: Session, project_id: UUID, num_gpus: int) -> bool:
    """Whether a run fits into its project's quotas now; if so, nobody else claims for the project before this commits.

    PostgreSQL's row lock makes claims of one project take turns; where there is no room it is given up again, so that a
    transaction never holds two. On SQLite writers take turns anyway.
    """
    turn = session.begin_nested()
    quotas = select(Project.max_gpu_slots, Project.max_running_runs).where(Project.id == project_id)
    project = session.execute(quotas.with_for_update(key_share=True)).one()
    is_live = (Run.project_id == project_id, text(IS_LIVE))
    gpus, runs = session.execute(select(func.coalesce(func.sum(Run.num_gpus), 0), func.count()).where(*is_live)).one()
    fits_gpus = project.max_gpu_slots is None or num_gpus == 0 or gpus + num_gpus <= project.max_gpu_slots
    if fits_gpus and (project.max_running_runs is None or runs < project.max_running_runs):
        turn.commit()
        return True
    turn.rollback()
    return False
