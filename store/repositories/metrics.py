"""Metrics: series of one run, thinned where asked, and exact aggregates over the seeds of a job."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.models.record import Metric
from store.models.run import Run
from store.statistics import Spread, spread


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One step of a series, or several steps taken together."""

    step: int
    """The last step of those taken together."""
    mean: float | None
    """null where no value was finite."""
    min: float | None
    max: float | None
    num_steps: int
    num_not_finite: int


@dataclass(frozen=True, slots=True)
class SeedsPoint:
    """One step of a metric over the seeds of a job."""

    step: int
    spread: Spread
    missing_seeds: list[int]


class Metrics:
    """Queries of metrics."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def keys(self, run_ids: Sequence[UUID]) -> list[str]:
        """Names of the metrics that some runs have."""
        query = select(Metric.key).where(Metric.run_id.in_(run_ids)).distinct().order_by(Metric.key)
        return list(self._session.scalars(query))

    def rows(
        self, run_id: UUID, keys: Sequence[str] | None = None, from_step: int = 0, limit: int = 10_000
    ) -> list[Metric]:
        """Single values of a run by step, then key."""
        query = select(Metric).where(Metric.run_id == run_id, Metric.step >= from_step)
        if keys is not None:
            query = query.where(Metric.key.in_(keys))
        return list(self._session.scalars(query.order_by(Metric.step, Metric.key).limit(limit)))

    def series(
        self, run_id: UUID, keys: Sequence[str] | None = None, from_step: int = 0, max_points: int = 1000
    ) -> dict[str, list[MetricPoint]]:
        """The curves of a run, at most `max_points` of each: mean, least and greatest value of the steps in a point."""
        is_wanted = [Metric.run_id == run_id, Metric.step >= from_step]
        if keys is not None:
            is_wanted.append(Metric.key.in_(keys))
        first = self._session.scalar(select(func.min(Metric.step)).where(*is_wanted))
        last = self._session.scalar(select(func.max(Metric.step)).where(*is_wanted))
        if first is None or last is None:
            return {}
        width = (last - first) // max_points + 1
        bucket = (Metric.step - first) // width
        query = (
            select(
                Metric.key,
                func.max(Metric.step),
                func.avg(Metric.value),
                func.min(Metric.value),
                func.max(Metric.value),
                func.count(),
                func.count(Metric.value),
            )
            .where(*is_wanted)
            .group_by(Metric.key, bucket)
            .order_by(Metric.key, func.max(Metric.step))
        )
        curves: dict[str, list[MetricPoint]] = defaultdict(list)
        for key, step, mean, low, high, num_steps, num_finite in self._session.execute(query):
            curves[key].append(MetricPoint(step, mean, low, high, num_steps, num_steps - num_finite))
        return dict(curves)

    def over_seeds(self, job_id: UUID, key: str, from_step: int = 0) -> list[SeedsPoint]:
        """A metric of a job by step: mean and spread over the seeds with a finite value, and the seeds without one."""
        seeds = set(self._session.scalars(select(Run.seed).where(Run.job_id == job_id)))
        query = (
            select(Metric.step, Run.seed, Metric.value)
            .join(Run, Run.id == Metric.run_id)
            .where(Run.job_id == job_id, Metric.key == key, Metric.step >= from_step)
            .order_by(Metric.step)
        )
        values: dict[int, dict[int, float]] = defaultdict(dict)
        for step, seed, value in self._session.execute(query):
            values[step] |= {} if value is None else {seed: value}
        return [
            SeedsPoint(step, spread(list(of_seed.values())), sorted(seeds - of_seed.keys()))
            for step, of_seed in values.items()
        ]
