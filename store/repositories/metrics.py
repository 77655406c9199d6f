"""Metrics: series of one run, thinned where asked, and aggregates over the seeds of jobs."""

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
    """One step of a metric over the seeds of a job, or several steps taken together."""

    step: int
    """The last step of those taken together."""
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

    def over_seeds(
        self, job_ids: Sequence[UUID], keys: Sequence[str] | None = None, from_step: int = 0, max_points: int = 1000
    ) -> dict[UUID, dict[str, list[SeedsPoint]]]:
        """The curves of some jobs by job and key: mean and spread over the seeds with a finite value.

        At most `max_points` of each; a point that takes several steps together is over each seed's mean of them. All
        jobs share one division into points, so that their curves can be laid over each other. A run that took over
        another's output has its values.
        """
        seeds: dict[UUID, set[int]] = defaultdict(set)
        for job_id, seed in self._session.execute(select(Run.job_id, Run.seed).where(Run.job_id.in_(job_ids))):
            seeds[job_id].add(seed)
        owner = func.coalesce(Run.reused_run_id, Run.id)
        is_wanted = [Run.job_id.in_(job_ids), Metric.step >= from_step]
        if keys is not None:
            is_wanted.append(Metric.key.in_(keys))
        first, last = (
            self._session.scalar(select(end(Metric.step)).join(Run, owner == Metric.run_id).where(*is_wanted))
            for end in (func.min, func.max)
        )
        if first is None or last is None:
            return {}
        width = (last - first) // max_points + 1
        place = ((Metric.step - first) // width).label("place")
        values = select(Run.job_id, Run.seed, Metric.key, Metric.step, Metric.value, place)
        each = values.join(Run, owner == Metric.run_id).where(*is_wanted).subquery()  # so that one name groups `place`
        shared = (each.c.job_id, each.c.key, each.c.place, each.c.seed)
        query = select(*shared, func.max(each.c.step), func.avg(each.c.value)).group_by(*shared).order_by(*shared)
        found: dict[tuple[UUID, str, int], list[tuple[int, int, float | None]]] = defaultdict(list)
        for job_id, key, bucket, seed, step, value in self._session.execute(query):
            found[job_id, key, bucket].append((seed, step, value))
        curves: dict[UUID, dict[str, list[SeedsPoint]]] = defaultdict(lambda: defaultdict(list))
        for (job_id, key, _), of_seeds in found.items():
            finite = {seed: value for seed, _, value in of_seeds if value is not None}
            last = max(step for _, step, _ in of_seeds)
            missing = sorted(seeds[job_id] - finite.keys())
            curves[job_id][key].append(SeedsPoint(last, spread(list(finite.values())), missing))
        return {job_id: dict(by_key) for job_id, by_key in curves.items()}
