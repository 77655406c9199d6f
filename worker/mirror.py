"""Mirrors metrics to the trackers of `LCO_TRACKERS`: `python -m worker.mirror`, one process for an installation.

It reads the rows that supervisors write, so no run waits for a tracker or fails with it; what a tracker lacks stays in
the database, however long it is away. How far each run is at each tracker is a row, written after the tracker has it.
"""

import fcntl
import importlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from store import logs
from store.database import Database, is_current, make_engine
from store.ids import encode_id
from store.repositories.mirrors import Mirrors, Pending
from store.settings import Settings
from store.states import RunState
from store.tracker_config import TrackerConfig, missing_package, tracker_configs
from worker.trackers.base import Card, Points, Tracker, flat

CLASSES = {"tensorboard": "TensorBoard", "mlflow": "Mlflow", "wandb": "WeightsAndBiases"}
"""Kind -> its class in the file of its name."""
_LOOK_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_PATIENCE = 3
"""Runs that may fail in one round: one of them may be at fault itself."""
_LOCK = 0x6C636F6D
"""Any constant: of several mirrors on one PostgreSQL, one works."""

logger = logging.getLogger(__name__)


def open_tracker(config: TrackerConfig) -> Tracker:
    """The tracker of a setting."""
    module = importlib.import_module(f"worker.trackers.{config.kind}")
    tracker: Tracker = getattr(module, CLASSES[config.kind])(config.target)
    return tracker


def card_of(pending: Pending) -> Card:
    """What a tracker shows about a run."""
    run, job = pending.run, pending.job
    config = job.spec.get("config", {})
    tags = {
        **{name: str(value) for name, value in job.details.items()},
        **{"kind": job.kind, "method": job.method, "job": job.name, "seed": str(run.seed)},
        **({"experiment": pending.experiment} if pending.experiment else {}),
    }
    return Card(
        id=encode_id("run", run.id),
        name=f"{job.name}-seed-{run.seed}",
        group=pending.experiment or job.name,
        created_at_ms=int(run.created_at.astimezone(UTC).timestamp() * 1000),
        config=flat({**config, "seed": run.seed}),
        tags=tags,
    )


@dataclass(slots=True)
class Mirroring:
    """Copies every run to one tracker, again and again where that fails."""

    database: Database
    config: TrackerConfig
    tracker: Tracker
    failures: int = 0
    """Rounds in a row in which something failed."""

    def round(self) -> bool:
        """Copies what the tracker lacks; False where something failed."""
        with self.database.read() as session:
            pending = Mirrors(session).pending(self.config.name)
        num_failed = 0
        for one in pending:
            try:
                self._copy(one)
            except SQLAlchemyError:
                raise
            except Exception as error:  # whatever a tracker's package raises: the points stay where they are
                num_failed += 1
                self._note_failure(one, error)
                if num_failed == _PATIENCE:
                    break  # it is away, and the others would wait as long
        self.failures = self.failures + 1 if num_failed else 0
        return not num_failed

    @property
    def wait_seconds(self) -> float:
        """Time until the next round."""
        return min(_LOOK_SECONDS * 2.0**self.failures, _LONGEST_WAIT_SECONDS)

    def _copy(self, pending: Pending) -> None:
        card = card_of(pending)
        with self.database.read() as session:
            points: Points = Mirrors(session).points(pending)
            results = Mirrors(session).results(pending.run.id) if pending.is_over and not points else {}
        external_id, step = pending.external_id, pending.step
        if points or not external_id or results:
            last = [(max(step, 0), results)] if results else []
            external_id = self.tracker.write(card, [*points, *last], external_id, step + 1)
            step = points[-1][0] if points else step
        is_done = pending.is_over and not points
        if is_done:
            self.tracker.end(card, external_id, succeeded=pending.run.state == RunState.SUCCEEDED)
        elif not points and external_id == pending.external_id:
            return
        with self.database.write() as session:
            found = {"step": step, "external_id": external_id, "is_done": is_done, "error": ""}
            Mirrors(session).save(pending.run.id, self.config.name, **found)

    def _note_failure(self, pending: Pending, error: Exception) -> None:
        """Tells the run's owner, once an outage."""
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        with logs.bound(run_id=encode_id("run", pending.run.id)):
            logger.warning("%s: not mirrored, tried again: %s", self.config.kind, reason)
        with self.database.write() as session:
            before = Mirrors(session).save(pending.run.id, self.config.name, error=reason)
            if not before["error"]:
                message = f"metrics wait to be mirrored to {self.config.kind}; nothing is lost, and the run goes on"
                Mirrors(session).warn(pending, message, {"tracker": self.config.kind, "reason": type(error).__name__})


def mirror_until(stop: threading.Event, database: Database, config: TrackerConfig) -> None:
    """Mirrors to one tracker until a stop."""
    mirroring: Mirroring | None = None
    while not stop.is_set():
        try:
            mirroring = mirroring or Mirroring(database, config, open_tracker(config))
            mirroring.round()
        except SQLAlchemyError as error:
            logger.warning("%s: the database cannot be read: %s", config.kind, error)
        except Exception:
            logger.exception("%s: a round failed", config.kind)
        stop.wait(_LOOK_SECONDS if mirroring is None else mirroring.wait_seconds)
    if mirroring is not None:
        mirroring.tracker.close()


@contextmanager
def _only_one(settings: Settings, database: Database, stop: threading.Event) -> Iterator[None]:
    """Waits until no other mirror works on this database."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (settings.data_dir / "mirror.lock").open("w") as lock, database.engine.connect() as connection:
        is_told = False
        while not stop.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if connection.dialect.name == "sqlite":
                    break
                if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar():
                    connection.commit()
                    break
                connection.commit()
            except OSError:
                pass
            if not is_told:
                logger.info("another mirror works on this database: waiting for its end")
                is_told = True
            stop.wait(_LOOK_SECONDS)
        yield


def serve(settings: Settings) -> int:
    """The process: mirrors until SIGTERM or SIGINT. Its exit status: 2 where there is nothing to mirror with."""
    configs = tracker_configs(settings.trackers)
    problems = [missing for config in configs if (missing := missing_package(config))]
    if not configs or problems:
        print("\n".join(problems) or "LCO_TRACKERS is empty: there is nothing to mirror to", file=sys.stderr)
        return 2
    logs.configure(settings, own=("worker",))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(make_engine(settings))
    try:
        while not stop.is_set() and not _is_ready(database):
            stop.wait(_LOOK_SECONDS)
        with _only_one(settings, database, stop):
            threads = [threading.Thread(target=mirror_until, args=(stop, database, one)) for one in configs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return 0
    finally:
        database.dispose()


def _is_ready(database: Database) -> bool:
    try:
        return is_current(database.engine)
    except SQLAlchemyError:
        return False


if __name__ == "__main__":
    sys.exit(serve(Settings.from_environment()))
