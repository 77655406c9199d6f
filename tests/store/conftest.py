"""A rig that drives the store as the API and a worker do, one transaction a call."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter
from sqlalchemy import delete, text

from store.claims import Claim, claim
from store.database import Database, make_engine
from store.ids import new_id
from store.models.job import Experiment, Job
from store.models.project import DEFAULT_PROJECT_ID, Project
from store.models.run import Run
from store.models.tables import Base
from store.queue import finish, start
from store.repositories.jobs import Jobs
from store.repositories.runs import Runs
from store.rows import Collected
from store.settings import Settings
from store.specs import ExperimentSpec, JobSpec
from store.states import Decision, Outcome
from store.submission import submit_experiment, submit_job
from tests import servers

CONFIGS: dict[str, dict[str, Any]] = {
    "sft": {"policy": {}, "prompts": {"name": "sums"}},
    "pairs": {"policy": "job:sft", "prompts": {"name": "sums"}},
    "dpo": {"policy": "job:sft", "pairs": "job:pairs"},
    "evaluation": {"policy": "job:sft", "benchmarks": [{"name": "sums"}]},
}


class Rig:
    """The store behind short words."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.worker_id = new_id()

    def spec(self, kind: str = "sft", **fields: Any) -> JobSpec:
        """A job spec with a minimal config, which `config` extends."""
        config = CONFIGS.get(kind, {}) | fields.pop("config", {})
        document = {"kind": kind, "name": kind, "config": config, **fields}
        spec: JobSpec = TypeAdapter(JobSpec).validate_json(json.dumps(document))
        return spec

    def experiment_spec(self, *jobs: JobSpec) -> ExperimentSpec:
        """An experiment of some jobs."""
        documents = [job.model_dump(mode="json", exclude={"config": {"seed"}}) for job in jobs]
        return ExperimentSpec.model_validate_json(json.dumps({"name": "experiment", "jobs": documents}))

    def submit(self, kind: str = "sft", **fields: Any) -> Job:
        """Submits a job."""
        with self.database.write() as session:
            return submit_job(session, self.spec(kind, **fields), self.settings)

    def submit_experiment(self, *jobs: JobSpec) -> Experiment:
        """Submits an experiment."""
        with self.database.write() as session:
            return submit_experiment(session, self.experiment_spec(*jobs), self.settings)

    def claim(self, **offer: Any) -> Claim | None:
        """Claims a run for the rig's worker, or for the one named."""
        defaults: dict[str, Any] = {
            "worker_id": self.worker_id,
            "queues": ["lco.cpu", "lco.gpu"],
            "labels": [],
            "free_gpus": [],
            "dispatcher": "local",
            "host": "here",
        }
        with self.database.write() as session:
            return claim(session, **(defaults | offer))

    def take(self, **offer: Any) -> Claim:
        """Claims a run that must be there."""
        taken = self.claim(**offer)
        assert taken is not None
        return taken

    def started(self) -> Claim:
        """A claimed run whose process has started."""
        taken = self.take()
        with self.database.write() as session:
            start(session, taken, 1)
        return taken

    def finish(
        self,
        taken: Claim,
        outcome: Outcome = Outcome.SUCCEEDED,
        message: str = "",
        collected: Collected | None = None,
        **fields: Any,
    ) -> Decision:
        """Ends an attempt."""
        with self.database.write() as session:
            return finish(session, taken, outcome, 0, message, collected, **fields)

    def run(self, run_id: UUID) -> Run:
        """The row of a run."""
        with self.database.read() as session:
            return Runs(session).get(run_id)

    def job(self, job_id: UUID) -> Job:
        """The row of a job."""
        with self.database.read() as session:
            return Jobs(session).get(job_id)

    def runs(self, job_id: UUID) -> list[Run]:
        """The runs of a job by seed."""
        with self.database.read() as session:
            return Runs(session).of_jobs([job_id])[job_id]

    def jobs_of(self, experiment: Experiment) -> dict[str, Job]:
        """The jobs of an experiment by name."""
        with self.database.read() as session:
            return {job.name: job for job in Jobs(session).of_experiment(experiment.id)}


@pytest.fixture(scope="session")
def shared_postgres(
    postgres_url: str, migrated_postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A migrated PostgreSQL database that the session's rigs share, emptied between them: faster than one for each."""
    with servers.new_database(postgres_url, template=migrated_postgres) as url:
        settings = Settings(data_dir=tmp_path_factory.mktemp("unused"), database_url=url)
        database = Database(make_engine(settings))
        yield database
        database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def rig(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Rig]:
    """A rig on each engine, with an empty database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_rig")
        return
    shared: Database = request.getfixturevalue("shared_postgres")
    url = shared.engine.url.render_as_string(hide_password=False)
    database = Database(make_engine(settings.model_copy(update={"database_url": url})))
    yield Rig(database, settings)
    database.dispose()
    with shared.write() as session:
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables if table.name != "projects")
        session.execute(text(f"TRUNCATE {tables}"))
        session.execute(delete(Project).where(Project.id != DEFAULT_PROJECT_ID))  # the migration made that one


@pytest.fixture
def sqlite_rig(database: Database, sqlite_settings: Settings) -> Rig:
    """A rig on SQLite: for claims that do not depend on the engine."""
    return Rig(database, sqlite_settings)
