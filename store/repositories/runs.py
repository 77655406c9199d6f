"""Runs, their attempts and dependencies."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from store.database import database_time
from store.models.job import Job
from store.models.run import Attempt, Run, RunDependency
from store.repositories.paging import Order, Page, keyset_page
from store.states import LIVE, RunState
from store.tombstones import absent


class RunDigest(NamedTuple):
    """What is shown of a run within its job; lists of jobs read nothing else of it."""

    job_id: UUID
    project_id: UUID
    id: UUID
    seed: int
    num_gpus: int
    state: str
    desired: str
    status_reason: str
    attempt: int
    progress_step: int
    progress_total: int
    progress_message: str
    progress_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    is_held: bool
    is_passed_over: bool
    reused_run_id: UUID | None


class Runs:
    """Queries of runs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, run_id: UUID) -> Run:
        """One run.

        Raises:
            NotFound: there is none.
        """
        run = self._session.get(Run, run_id)
        if run is None:
            raise absent(self._session, "run", run_id)
        return run

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        job_id: UUID | None = None,
        experiment_id: UUID | None = None,
        state: str | None = None,
        kind: str | None = None,
        worker_id: UUID | None = None,
    ) -> Page[Run]:
        """Runs that meet every filter given."""
        query = select(Run)
        for column, value in (
            (Run.job_id, job_id),
            (Run.state, state),
            (Run.kind, kind),
            (Run.worker_id, worker_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if experiment_id is not None:
            query = query.join(Job, Job.id == Run.job_id).where(Job.experiment_id == experiment_id)
        return keyset_page(self._session, query, Run.id, limit=limit, after=after, before=before, order=order)

    def of_jobs(self, job_ids: Iterable[UUID]) -> dict[UUID, list[Run]]:
        """All runs of some jobs, each job's in the order of their seeds."""
        runs: dict[UUID, list[Run]] = defaultdict(list)
        query = select(Run).where(Run.job_id.in_(list(job_ids))).order_by(Run.job_id, Run.seed)
        for run in self._session.scalars(query):
            runs[run.job_id].append(run)
        return dict(runs)

    def digests(self, job_ids: Iterable[UUID]) -> dict[UUID, list[RunDigest]]:
        """The same, without what only a run's own page shows."""
        found: dict[UUID, list[RunDigest]] = defaultdict(list)
        query = select(*(getattr(Run, name) for name in RunDigest._fields)).where(Run.job_id.in_(list(job_ids)))
        for row in self._session.execute(query.order_by(Run.job_id, Run.seed)):
            found[row.job_id].append(RunDigest._make(row))
        return dict(found)

    def attempts(self, run_id: UUID) -> list[Attempt]:
        """All attempts of a run, first to last."""
        return list(self._session.scalars(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.n)))

    def needs(self, run_id: UUID) -> list[UUID]:
        """The runs that a run waits for or waited for."""
        query = select(RunDependency.needs_id).where(RunDependency.run_id == run_id)
        return list(self._session.scalars(query.order_by(RunDependency.needs_id)))

    def needs_of(self, run_ids: Iterable[UUID]) -> dict[UUID, list[UUID]]:
        """For each of some runs, the runs that it waits for or waited for."""
        query = select(RunDependency.run_id, RunDependency.needs_id).where(RunDependency.run_id.in_(list(run_ids)))
        needs: dict[UUID, list[UUID]] = defaultdict(list)
        for run_id, needed_id in self._session.execute(query.order_by(RunDependency.needs_id)):
            needs[run_id].append(needed_id)
        return dict(needs)

    def by_ids(self, run_ids: Iterable[UUID]) -> dict[UUID, Run]:
        """Runs by their ids; those that do not exist are left out."""
        return {run.id: run for run in self._session.scalars(select(Run).where(Run.id.in_(list(run_ids))))}

    def heads(self, run_ids: Iterable[UUID]) -> dict[UUID, tuple[Any, ...]]:
        """For each of some runs a mark that differs whenever its state, its progress or its metrics have changed."""
        columns = (Run.version, Run.state, Run.progress_step, Run.progress_message, Run.progress_at, Run.latest_metrics)
        query = select(Run.id, *columns).where(Run.id.in_(list(run_ids)))
        return {row[0]: (*row[1:-1], repr(row[-1])) for row in self._session.execute(query)}

    def counts(self) -> dict[tuple[str, str], int]:
        """Number of runs by (state, queue)."""
        query = select(Run.state, Run.queue, func.count()).group_by(Run.state, Run.queue)
        return {(state, queue): count for state, queue, count in self._session.execute(query)}

    def oldest_queued_seconds(self) -> dict[str, float]:
        """For each queue with claimable runs: how long the one that waits longest has been claimable."""
        moment = database_time(self._session)
        query = (
            select(Run.queue, func.min(Run.available_at))
            .where(Run.state == RunState.QUEUED, Run.available_at <= moment)
            .group_by(Run.queue)
        )
        return {queue: (moment - oldest).total_seconds() for queue, oldest in self._session.execute(query)}

    def attempt_outcomes(self) -> dict[str, int]:
        """Number of ended attempts by outcome."""
        ended = select(Attempt.outcome, func.count()).join(Run, Run.id == Attempt.run_id)
        query = ended.where(Attempt.outcome.is_not(None)).group_by(Attempt.outcome)
        return {outcome: count for outcome, count in self._session.execute(query) if outcome is not None}

    def waits(self, bounds: Sequence[float]) -> tuple[list[int], float]:
        """How many attempts waited at most as long as each bound, all of them last; and their seconds together."""
        waited = Attempt.waited_seconds
        counts = [func.count(case((waited <= bound, 1))) for bound in bounds]
        query = select(*counts, func.count(waited), func.coalesce(func.sum(waited), 0.0))
        row = self._session.execute(query.join(Run, Run.id == Attempt.run_id)).one()
        return list(row[:-1]), float(row[-1])

    def live(self, limit: int) -> list[Run]:
        """Runs that a worker holds, newest first."""
        query = select(Run).where(Run.state.in_(LIVE)).order_by(Run.id.desc()).limit(limit)
        return list(self._session.scalars(query))

    def held(self) -> tuple[int, int]:
        """How many runs workers hold, and how many GPUs these have."""
        query = select(func.count(), func.coalesce(func.sum(Run.num_gpus), 0)).where(Run.state.in_(LIVE))
        num_runs, num_gpus = self._session.execute(query).one()
        return int(num_runs), int(num_gpus)
