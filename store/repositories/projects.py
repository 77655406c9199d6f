"""Projects and what they use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.database import database_time
from store.errors import Conflict, NotFound
from store.ids import encode_id, new_id
from store.models.dataset import Dataset
from store.models.project import DEFAULT_PROJECT_ID, Project, Spending
from store.models.record import Checkpoint
from store.models.run import Run
from store.repositories.paging import Order, Page, keyset_page
from store.states import LIVE, TERMINAL, RunState

QUOTAS = ("max_gpu_slots", "max_running_runs", "max_storage_bytes", "max_judge_spend")
"""Columns that bound what a project may use."""


@dataclass(slots=True)
class Usage:
    """What a project uses now."""

    gpu_slots: int = 0
    running_runs: int = 0
    queued_runs: int = 0
    storage_bytes: int = 0
    judge_spend: float = 0.0
    """USD, this month."""
    judge_reserved: float = 0.0
    """USD that unfinished runs may still spend by their caps."""


class Projects:
    """Queries of projects. They are not confined: what a caller may see of other projects, its route decides."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, project_id: UUID) -> Project:
        """One project.

        Raises:
            NotFound: there is none.
        """
        project = self._session.get(Project, project_id)
        if project is None:
            raise NotFound("project", encode_id("prj", project_id))
        return project

    def own(self) -> Project:
        """The project of the session."""
        return self.get(project_of(self._session))

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        project_id: UUID | None = None,
        name: str | None = None,
    ) -> Page[Project]:
        """Projects that meet every filter given."""
        query = select(Project)
        for column, value in ((Project.id, project_id), (Project.name, name)):
            if value is not None:
                query = query.where(column == value)
        return keyset_page(self._session, query, Project.id, limit=limit, after=after, before=before, order=order)

    def names(self, project_ids: Iterable[UUID]) -> dict[UUID, str]:
        """The names of some projects."""
        query = select(Project.id, Project.name).where(Project.id.in_(set(project_ids)))
        return {row.id: row.name for row in self._session.execute(query)}

    def create(self, name: str, quotas: Mapping[str, Any] | None = None) -> Project:
        """Adds a project.

        Raises:
            Conflict: the name is taken.
        """
        project = Project(id=new_id(), name=name, created_at=database_time(self._session), **(quotas or {}))
        try:
            with self._session.begin_nested():
                self._session.add(project)
        except IntegrityError:
            raise Conflict("name_taken", "another project has this name") from None
        return project

    def change(self, project_id: UUID, values: Mapping[str, Any]) -> Project:
        """Sets name or quotas; the rest stays.

        Raises:
            NotFound: there is no such project.
            Conflict: the name is taken.
        """
        project = self.get(project_id)
        if values:
            try:
                with self._session.begin_nested():
                    self._session.execute(update(Project).where(Project.id == project_id).values(**values))
            except IntegrityError:
                raise Conflict("name_taken", "another project has this name") from None
            self._session.refresh(project)
        return project

    def archive(self, project_id: UUID, *, is_archived: bool = True) -> Project:
        """Ends a project, or takes it up again: nothing new may be submitted to it, what is there stays readable.

        Raises:
            NotFound: there is no such project.
            Conflict: it is the default project, which every installation needs.
        """
        project = self.get(project_id)
        if project_id == DEFAULT_PROJECT_ID:
            raise Conflict("default_project", "the default project cannot be archived")
        if is_archived != (project.archived_at is not None):
            project.archived_at = database_time(self._session) if is_archived else None
            self._session.flush()
        return project

    def usage(self, project_ids: Iterable[UUID]) -> dict[UUID, Usage]:
        """What some projects use now, with a query for each kind of thing however many projects there are."""
        usage = {project_id: Usage() for project_id in project_ids}
        wanted = list(usage)
        runs = (
            select(Run.project_id, Run.state, func.count().label("number"), func.sum(Run.num_gpus).label("gpus"))
            .where(Run.project_id.in_(wanted), Run.state.in_([*LIVE, RunState.QUEUED]))
            .group_by(Run.project_id, Run.state)
        )
        for row in self._session.execute(runs):
            found = usage[row.project_id]
            if row.state == RunState.QUEUED:
                found.queued_runs += row.number
            else:
                found.running_runs += row.number
                found.gpu_slots += row.gpus
        for project_id, size in self._stored(wanted):
            usage[project_id].storage_bytes += size
        month = month_of(database_time(self._session))
        spent = (
            select(Spending.project_id, func.sum(Spending.usd))
            .where(Spending.project_id.in_(wanted), Spending.month == month)
            .group_by(Spending.project_id)
        )
        for project_id, usd in self._session.execute(spent):
            usage[project_id].judge_spend = usd
        for project_id, usd in self._reserved(wanted):
            usage[project_id].judge_reserved = usd
        return usage

    def _stored(self, project_ids: list[UUID]) -> Iterable[tuple[UUID, int]]:
        checkpoints = (
            select(Checkpoint.project_id, func.sum(Checkpoint.size_bytes))
            .where(Checkpoint.project_id.in_(project_ids), Checkpoint.deleted_at.is_(None))
            .group_by(Checkpoint.project_id)
        )
        # Versions with equal rows share a file.
        files = select(Dataset.project_id, Dataset.sha256, Dataset.size_bytes).distinct()
        some = files.where(Dataset.project_id.in_(project_ids)).subquery()
        datasets = select(some.c.project_id, func.sum(some.c.size_bytes)).group_by(some.c.project_id)
        for query in (checkpoints, datasets):
            for project_id, size in self._session.execute(query):
                yield project_id, int(size)

    def _reserved(self, project_ids: list[UUID]) -> Iterable[tuple[UUID, float]]:
        spent = select(Spending.run_id, func.sum(Spending.usd).label("usd")).group_by(Spending.run_id).subquery()
        query = (
            select(Run.project_id, Run.spending_cap, func.coalesce(spent.c.usd, 0.0))
            .outerjoin(spent, spent.c.run_id == Run.id)
            .where(Run.project_id.in_(project_ids), Run.spending_cap > 0, Run.state.not_in(TERMINAL))
        )
        left: dict[UUID, float] = {}
        for project_id, cap, usd in self._session.execute(query):
            left[project_id] = left.get(project_id, 0.0) + max(cap - usd, 0.0)
        return left.items()


def month_of(moment: datetime) -> str:
    """The calendar month of a moment in UTC: `2026-11`."""
    return moment.strftime("%Y-%m")
