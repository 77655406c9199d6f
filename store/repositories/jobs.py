"""Jobs and experiments."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from store.models.job import Experiment, Job
from store.models.run import Run, RunDependency
from store.repositories.paging import Order, Page, keyset_page
from store.states import job_status
from store.tombstones import absent

_NEEDED_RUN = aliased(Run)  # made once: an alias costs more than the query that it is for


class Jobs:
    """Queries of jobs."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, job_id: UUID) -> Job:
        """One job.

        Raises:
            NotFound: there is none.
        """
        job = self._session.get(Job, job_id)
        if job is None:
            raise absent(self._session, "job", job_id)
        return job

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        status: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        method: str | None = None,
        experiment_id: UUID | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[Job]:
        """Jobs that meet every filter given."""
        query = select(Job)
        for column, value in (
            (Job.status, status),
            (Job.kind, kind),
            (Job.name, name),
            (Job.method, method),
            (Job.experiment_id, experiment_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if created_after is not None:
            query = query.where(Job.created_at > created_after)
        if created_before is not None:
            query = query.where(Job.created_at < created_before)
        for key, text in (metadata or {}).items():
            query = query.where(Job.details[key].as_string() == text)
        return keyset_page(self._session, query, Job.id, limit=limit, after=after, before=before, order=order)

    def of_experiment(self, experiment_id: UUID) -> list[Job]:
        """All jobs of an experiment, in the order of their creation."""
        return list(self._session.scalars(select(Job).where(Job.experiment_id == experiment_id).order_by(Job.id)))

    def by_ids(self, job_ids: Iterable[UUID]) -> dict[UUID, Job]:
        """Jobs by their ids; those that do not exist are left out."""
        return {job.id: job for job in self._session.scalars(select(Job).where(Job.id.in_(list(job_ids))))}

    def of_experiments(self, experiment_ids: Iterable[UUID]) -> dict[UUID, list[Job]]:
        """All jobs of some experiments, each one's in the order of their creation."""
        jobs: dict[UUID, list[Job]] = defaultdict(list)
        query = select(Job).where(Job.experiment_id.in_(list(experiment_ids))).order_by(Job.id)
        for job in self._session.scalars(query):
            assert job.experiment_id is not None
            jobs[job.experiment_id].append(job)
        return dict(jobs)

    def needs(self, job_ids: Iterable[UUID]) -> dict[UUID, list[UUID]]:
        """For each of some jobs, the jobs that its runs wait for or waited for, in the order of their creation."""
        query = (
            select(Run.job_id, _NEEDED_RUN.job_id)
            .join(RunDependency, RunDependency.run_id == Run.id)
            .join(_NEEDED_RUN, _NEEDED_RUN.id == RunDependency.needs_id)
            .where(Run.job_id.in_(list(job_ids)))
            .distinct()
            .order_by(Run.job_id, _NEEDED_RUN.job_id)
        )
        needs: dict[UUID, list[UUID]] = defaultdict(list)
        for job_id, needed_id in self._session.execute(query):
            needs[job_id].append(needed_id)
        return dict(needs)

    def heads(self, job_ids: Iterable[UUID]) -> dict[UUID, tuple[int, int]]:
        """For each of some jobs a mark that differs whenever it or its events have changed."""
        query = select(Job.id, Job.event_seq, Job.version).where(Job.id.in_(list(job_ids)))
        return {job_id: (seq, version) for job_id, seq, version in self._session.execute(query)}


class Experiments:
    """Queries of experiments."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, experiment_id: UUID) -> Experiment:
        """One experiment.

        Raises:
            NotFound: there is none.
        """
        experiment = self._session.get(Experiment, experiment_id)
        if experiment is None:
            raise absent(self._session, "experiment", experiment_id)
        return experiment

    def name(self, experiment_id: UUID) -> str | None:
        """The name of an experiment; None where there is none, or none any more."""
        return self._session.scalar(select(Experiment.name).where(Experiment.id == experiment_id))

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        name: str | None = None,
        created_after: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Page[Experiment]:
        """Experiments that meet every filter given."""
        query = select(Experiment)
        if name is not None:
            query = query.where(Experiment.name == name)
        if created_after is not None:
            query = query.where(Experiment.created_at > created_after)
        for key, text in (metadata or {}).items():
            query = query.where(Experiment.details[key].as_string() == text)
        return keyset_page(self._session, query, Experiment.id, limit=limit, after=after, before=before, order=order)

    def statuses(self, experiment_ids: Iterable[UUID]) -> dict[UUID, str]:
        """The status of each experiment: that of all its runs taken together."""
        wanted = list(experiment_ids)
        states = self.run_states(wanted)
        # Trials that a search went on without make nothing worse, as long as anything else is there.
        counted = {**states, **self.run_states(wanted, is_whole=False)}
        return {experiment_id: job_status(counts) for experiment_id, counts in counted.items()}

    def run_states(self, experiment_ids: Iterable[UUID], *, is_whole: bool = True) -> dict[UUID, dict[str, int]]:
        """How many runs of each experiment are in each state.

        Args:
            is_whole: False leaves out those that a search went on without.
        """
        query = (
            select(Job.experiment_id, Run.state, func.count())
            .join(Run, Run.job_id == Job.id)
            .where(Job.experiment_id.in_(list(experiment_ids)))
            .group_by(Job.experiment_id, Run.state)
        )
        if not is_whole:
            query = query.where(Run.is_passed_over.is_(False))
        states: dict[UUID, dict[str, int]] = defaultdict(dict)
        for experiment_id, state, count in self._session.execute(query):
            assert experiment_id is not None
            states[experiment_id][state] = count
        return dict(states)
