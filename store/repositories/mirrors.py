"""Mirrors: which runs a tracker does not have to the end yet, and what it lacks of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, or_, select
from sqlalchemy.orm import Session

from store.database import database_time
from store.effects import Happening, settle
from store.models.job import Experiment, Job
from store.models.mirror import Mirror
from store.models.record import Metric, Result
from store.models.run import Run
from store.states import TERMINAL

MAX_RUNS = 50
MAX_ROWS = 20_000
_BACKLOG = timedelta(days=1)
"""Runs that ended longer ago when a tracker is first named are not copied to it."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that a tracker does not have to the end."""

    run: Run
    job: Job
    experiment: str
    """Name of its experiment; empty without one."""
    step: int
    """Last step that the tracker has; -1 for none."""
    external_id: str

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.run.state in TERMINAL


class Mirrors:
    """Queries of mirrors."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pending(self, tracker: str) -> list[Pending]:
        """Runs that have begun and are not mirrored to their end, oldest first; those that failed lately last."""
        since = database_time(self._session) - _BACKLOG
        here = and_(Mirror.run_id == Run.id, Mirror.tracker == tracker)
        query = (
            select(Run, Job, Experiment.name, Mirror.step, Mirror.external_id)
            .join(Job, Job.id == Run.job_id)
            .outerjoin(Experiment, Experiment.id == Job.experiment_id)
            .outerjoin(Mirror, here)
            .where(Run.attempt > 0, Run.reused_run_id.is_(None), or_(Mirror.is_done.is_(None), ~Mirror.is_done))
            .where(or_(Mirror.run_id.is_not(None), Run.finished_at.is_(None), Run.finished_at > since))
            .order_by(case((func.coalesce(Mirror.error, "") == "", 0), else_=1), Run.id)
            .limit(MAX_RUNS)
        )
        return [
            Pending(run, job, experiment or "", -1 if step is None else step, external_id or "")
            for run, job, experiment, step, external_id in self._session.execute(query)
        ]

    def points(self, pending: Pending) -> list[tuple[int, dict[str, float]]]:
        """Metrics by step, in order, of the steps that the tracker lacks and that are whole.

        A step's values may be stored one after the other: while the run goes on, its last step waits for the next.
        """
        query = (
            select(Metric.step, Metric.key, Metric.value)
            .where(Metric.run_id == pending.run.id, Metric.step > pending.step)
            .order_by(Metric.step, Metric.key)
            .limit(MAX_ROWS)
        )
        found: dict[int, dict[str, float]] = {}
        num_rows = 0
        for step, key, value in self._session.execute(query):
            num_rows += 1
            found.setdefault(step, {})
            if value is not None:
                found[step][key] = value
        if found and (not pending.is_over or num_rows == MAX_ROWS):
            del found[max(found)]
        return list(found.items())

    def results(self, run_id: UUID) -> dict[str, float]:
        """What an evaluation run measured: the mean over eval seeds of each benchmark, metric and decoding."""
        query = select(Result.benchmark, Result.metric, Result.decoding, Result.value).where(Result.run_id == run_id)
        values: dict[str, list[float]] = {}
        for benchmark, metric, decoding, value in self._session.execute(query):
            if value is not None:
                values.setdefault(f"eval/{benchmark}/{metric}/{decoding}", []).append(value)
        return {name: sum(found) / len(found) for name, found in values.items()}

    def save(self, run_id: UUID, tracker: str, **values: Any) -> Mapping[str, Any]:
        """Writes how far a run is at a tracker; gives what stood there before."""
        row = self._session.get(Mirror, (run_id, tracker))
        if row is None:
            row = Mirror(run_id=run_id, tracker=tracker)
            self._session.add(row)
            self._session.flush()
        before = {name: getattr(row, name) for name in values}
        for name, value in values.items():
            setattr(row, name, value)
        return before

    def warn(self, pending: Pending, message: str, data: Mapping[str, Any]) -> None:
        """An event of the run that its owner should see."""
        happening = Happening(
            job_id=pending.job.id,
            run_id=pending.run.id,
            attempt=pending.run.attempt,
            type="run.message",
            level="warning",
            message=message,
            data=dict(data),
        )
        settle(self._session, [happening])
