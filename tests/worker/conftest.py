"""Runs of stand-in processes, and supervisors with short beats for them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import select, text

from store.artifacts import run_directory
from store.database import Database
from store.models.job import Job
from store.models.record import Event
from store.models.run import Attempt, Run
from store.settings import Settings
from store.sources import spec_of
from store.submission import submit_job
from tests.worker.stand_in_kinds import STAND_INS
from worker import keeper
from worker.reconciler import Reconciler
from worker.supervisor import Supervisor

BRIEF = {"lease_seconds": 1.5, "beat_seconds": 0.2, "stop_seconds": 5.0, "poll_seconds": 0.05, "slots": 2}


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Whether the condition came true within the time."""
    deadline = time.monotonic() + seconds
    while not (is_true := bool(condition())) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true


class Platform:
    """A database with runs in it, and what one wants to know of them."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.processes: list[subprocess.Popen[bytes]] = []

    def submit(
        self, *, seeds: tuple[int, ...] = (0,), steps: int = 3, every: int = 1, gpus: int = 0, **behaviour: object
    ) -> UUID:
        """A job of kind `sft` whose stand-in behaves as told; the id of its first run."""
        config = {
            "policy": {"name": "llama", "characters": json.dumps(behaviour) if behaviour else "0"},
            "prompts": {"name": "sums"},
            "steps": steps,
            "checkpoint_every_steps": every,
        }
        job = {"kind": "sft", "name": "warm-up", "seeds": list(seeds), "config": config, "resources": {"gpus": gpus}}
        return self.submit_spec(job)

    def submit_spec(self, document: dict[str, object]) -> UUID:
        """The first run of a job."""
        with self.database.write() as session:
            job = submit_job(session, spec_of(document), self.settings)
            session.flush()
            return session.scalars(select(Run.id).where(Run.job_id == job.id).order_by(Run.id)).first()

    def run(self, run_id: UUID) -> Run:
        with self.database.read() as session:
            return session.get_one(Run, run_id)

    def state(self, run_id: UUID) -> str:
        return self.run(run_id).state

    def attempts(self, run_id: UUID) -> list[Attempt]:
        with self.database.read() as session:
            return list(session.scalars(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.n)))

    def events(self, run_id: UUID) -> list[Event]:
        with self.database.read() as session:
            return list(session.scalars(select(Event).where(Event.run_id == run_id).order_by(Event.seq)))

    def job(self, run_id: UUID) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, self.run(run_id).job_id)

    def directory(self, run_id: UUID, attempt: int = 1) -> Path:
        return run_directory(self.settings, run_id, attempt)

    def link(self, run_id: UUID, attempt: int) -> str:
        """What a finished stand-in computed."""
        return (self.directory(run_id, attempt) / "model" / "link").read_text()

    def is_training(self, run_id: UUID, attempt: int = 1, step: int = 1) -> bool:
        run = self.run(run_id)
        return run.attempt == attempt and run.state == "running" and run.progress_step >= step

    def supervisor(self, **options: object) -> Supervisor:
        return Supervisor(
            self.settings, self.database, **{"dispatcher": "local", "slots": 1, "kinds": STAND_INS, **options}
        )

    def reconcile(self) -> Reconciler:
        return Reconciler(self.settings, self.database)

    def environment(self) -> dict[str, str]:
        """Of a process with these settings."""
        values = self.settings.model_dump(mode="json", exclude_defaults=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LCO_")}
        return kept | {f"LCO_{name.upper()}": str(value) for name, value in values.items()}

    def spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """A process of the platform, killed at the end of the test; its output goes to a file."""
        log = self.settings.data_dir / f"process-{len(self.processes)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment(),
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def spawn_local(self) -> "subprocess.Popen[bytes]":
        """`python -m worker.local` with the stand-in kinds."""
        return self.spawn("-m", "tests.worker.stand_in_kinds")

    def marked(self, run_id: UUID) -> list[int]:
        """Processes of any attempt of a run."""
        num_attempts = self.run(run_id).attempt
        directory = self.directory(run_id).parent.name
        return [pid for n in range(1, num_attempts + 1) for pid in keeper.marked(f"{directory}/{n}")]

    @contextmanager
    def outage(self) -> Iterator[None]:
        """No statement about runs succeeds meanwhile."""
        with self.database.write() as session:
            session.execute(text("ALTER TABLE runs RENAME TO elsewhere"))
        try:
            yield
        finally:
            with self.database.write() as session:
                session.execute(text("ALTER TABLE elsewhere RENAME TO runs"))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for log in sorted(self.settings.data_dir.glob("process-*.log")):
            print(f"--- {log.name}\n{log.read_text()}")


class Supervision:
    """A supervisor that follows one run on a thread of its own."""

    def __init__(self, supervisor: Supervisor, queues: tuple[str, ...] = ("lco.cpu",)) -> None:
        self.supervisor = supervisor
        attempt = supervisor.take(queues)
        assert attempt is not None, "nothing to take"
        self.thread = threading.Thread(target=supervisor.supervise, args=(attempt,))
        self.thread.start()

    def is_over(self, seconds: float = 10.0) -> bool:
        self.thread.join(seconds)
        return not self.thread.is_alive()


@pytest.fixture
def platform(sqlite_settings: Settings) -> Iterator[Platform]:
    """A platform on SQLite with short beats."""
    yield from _platform(sqlite_settings)


@pytest.fixture
def any_platform(any_settings: Settings) -> Iterator[Platform]:
    """A platform on each engine with short beats."""
    yield from _platform(any_settings)


@pytest.fixture
def postgres_platform(postgres_settings: Settings) -> Iterator[Platform]:
    """A platform on PostgreSQL with short beats."""
    yield from _platform(postgres_settings)


@pytest.fixture
def broker_url(redis_url: str) -> Iterator[str]:
    """An empty Redis database that no other test process uses."""
    number = 1 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    url = f"{redis_url.rpartition('/')[0]}/{number}"
    with redis.Redis.from_url(url) as broker:
        broker.flushdb()
        yield url
        broker.flushdb()


@pytest.fixture
def celery_platform(postgres_settings: Settings, broker_url: str) -> Iterator[Platform]:
    """A platform on PostgreSQL and Redis with short beats."""
    yield from _platform(postgres_settings.model_copy(update={"broker_url": broker_url}))


def _platform(settings: Settings) -> Iterator[Platform]:
    from store.database import make_engine

    settings = settings.model_copy(update=BRIEF)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(make_engine(settings))
    platform = Platform(settings, database)
    try:
        yield platform
    finally:
        platform.close()
        database.dispose()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A certificate of 127.0.0.1 that nobody else signed, and its key."""
    directory = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    paths = [str(directory / "cert.pem"), str(directory / "key.pem")]
    subprocess.run([*command.split(), "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths
