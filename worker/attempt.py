"""One attempt under supervision: its process, its heartbeat, its rows, its end."""

import contextvars
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as DatabaseTimeoutError
from sqlalchemy.orm import Session

from lco.manifest import Manifest, read_manifest, sync_directory, write_durably
from store import artifacts, logs, queue, tracing
from store.claims import Claim
from store.database import Database
from store.deletion import forget_states
from store.endpoints import key_variables
from store.errors import Invalid, NotYours
from store.ids import encode_id
from store.models.dataset import Dataset
from store.objects import CHECKPOINTS, StoreUnavailable, object_store
from store.repositories.signals import Signals
from store.rows import CheckpointRow
from store.settings import Settings
from store.sources import spec_of
from store.specs import Resources
from store.states import Desired, Outcome, RunState
from worker.endings import Ending, classify
from worker.gpus import Hold
from worker.kinds import Kind
from worker.process import LOG, Command, RunProcess
from worker.publisher import Publisher
from worker.tails import Batch, Tails

SILENCE_SECONDS = 600.0
"""Silence of the database after which a run is given up. Until then it goes on, and its files are the spool."""
_LOOK_SECONDS = 0.05
_FLUSH_SECONDS = 0.5
_RETRY_SECONDS = 1.0
_HURRY_SECONDS = 15.0

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Abandoned(Exception):
    """The attempt is no longer this supervisor's, or the database was silent for too long: nothing more is written."""


def is_outage(error: SQLAlchemyError) -> bool:
    """Whether the database could not be reached or was busy: the same statement may succeed later."""
    if isinstance(error, OperationalError | InterfaceError | DatabaseTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


class SupervisedAttempt:
    """Supervises one claimed run from its start to its last row. `run` does it; other threads may ask it to stop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        kinds: Mapping[str, Kind],
        claim: Claim,
        hold: Hold,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Nothing is started yet; `hold` are the GPUs that the claim was given."""
        self._settings, self._database, self._kinds = settings, database, kinds
        self._claim, self._hold = claim, hold
        self._silence_seconds = silence_seconds
        self._name = f"{encode_id('run', claim.run_id)}/{claim.attempt}"
        self._directory = artifacts.run_directory(settings, claim.run_id, claim.attempt)
        self._tails = Tails(self._directory, LOG)
        self._publisher = Publisher(object_store(settings), settings.artifacts)
        self._process: RunProcess | None = None
        self._is_started_row = False
        self._stop_by: float | None = None
        self._is_lost = False
        self._ending = ""
        self._last_word = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> None:
        """Supervises the attempt to its end. Never raises for what a run, its files or the database do."""
        claim = self._claim
        named = {"job_id": encode_id("job", claim.job_id), "run_id": encode_id("run", claim.run_id)}
        traced = tracing.trace_id_of(claim.traceparent)
        about = {**named, "attempt": claim.attempt, **({"trace_id": traced} if traced else {})}
        tracing.past("lco.queue", claim.traceparent, claim.waited_seconds, **about)
        with (
            logs.bound(**about),
            tracing.span("lco.attempt", claim.traceparent, kind=claim.kind, seed=claim.seed, **about) as span,
        ):
            self._run()
            span.set_attribute("lco.ending", self._ending)

    def _run(self) -> None:
        alike = contextvars.copy_context()  # the other thread's lines are about the same attempt
        beating = threading.Thread(target=alike.run, args=(self._beat,), name=f"beat {self._name}", daemon=True)
        beating.start()
        try:
            try:
                ending = self._execute()
            except Exception as error:
                if isinstance(error, Abandoned):
                    raise
                # A failure of our own must not leave the run to the end of its lease, nor its process alive.
                logger.exception("%s: cannot be supervised", self._name)
                self._kill()
                ending = Ending(Outcome.INFRA, "supervisor", f"{type(error).__name__}: {error}"[:500])
            self._finish(ending)
        except Abandoned as reason:
            self._ending = "given up"
            logger.warning("%s: given up: %s", self._name, reason)
            if self._is_lost or isinstance(reason.__cause__, NotYours):
                self._count_fenced()
        finally:
            self._kill()
            self._over.set()
            self._hold.release()
            beating.join()

    def ask_to_stop(self, within_seconds: float | None = None) -> None:
        """Lets the run checkpoint and end; it is killed when it takes longer than it has.

        Args:
            within_seconds: the time it has; None for the settings' `stop_seconds`. A second call can only shorten it.
        """
        seconds = self._settings.stop_seconds if within_seconds is None else within_seconds
        with self._lock:
            is_first, deadline = self._stop_by is None, time.monotonic() + seconds
            self._stop_by = deadline if self._stop_by is None else min(self._stop_by, deadline)
            process = self._process
        if is_first and process is not None:
            process.terminate()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _execute(self) -> Ending:
        """Starts the process and follows it to its exit."""
        try:
            command = self._prepare()
        except Invalid as error:
            return Ending(Outcome.USER, "input", f"{error.pointer}: {error.message}")
        except StoreUnavailable as error:
            return Ending(Outcome.INFRA, "object_store", str(error)[:500])
        except OSError as error:
            return Ending(Outcome.INFRA, "start", f"the run directory cannot be written: {error}")
        try:
            with self._lock:
                if self._stop_by is not None or self._is_lost:
                    return Ending(Outcome.STOPPED, "stopped", "asked to stop before it was started")
                self._process = process = RunProcess(command, self._hold.descriptors)
        except OSError as error:
            return Ending(Outcome.INFRA, "start", f"the process cannot be started: {error}")
        logger.info("%s: process %d (%s of seed %d)", self._name, process.pid, self._claim.kind, self._claim.seed)
        exit_code = self._follow(process)
        return classify(self._directory, LOG, exit_code, was_asked=self._stop_by is not None)

    def _prepare(self) -> Command:
        """Makes the run directory with its `config.json`."""
        if self._claim.kind not in self._kinds:
            raise Invalid("/kind", f"this worker knows no kind {self._claim.kind!r}")
        for needed in self._insistently(self._elsewhere):
            artifacts.bring(self._settings, needed)
        config = self._insistently(self._resolve)
        self._directory.mkdir(parents=True, exist_ok=True)
        for directory in (self._directory.parent, self._directory.parent.parent):
            sync_directory(directory)
        path = self._directory / "config.json"
        write_durably(path, json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False).encode())
        return Command(
            module=self._kinds[self._claim.kind].module,
            config=path,
            directory=self._directory,
            resume_from=tuple(artifacts.earlier_directories(self._settings, self._claim)),
            gpus=tuple(self._claim.gpus),
            num_processes=Resources.model_validate(self._claim.spec.get("resources", {})).num_processes,
            keys=key_variables(self._settings, spec_of(self._claim.spec).config),
            pause_at_step=self._claim.pause_at_step,
            variables=self._kinds[self._claim.kind].variables(self._settings),
            mark=self._name,
            traceparent=tracing.current_traceparent() or self._claim.traceparent,
        )

    def _elsewhere(self) -> list[Path | Dataset]:
        with self._database.read() as session:
            return artifacts.inputs_elsewhere(session, self._settings, self._claim)

    def _resolve(self) -> dict[str, Any]:
        with self._database.read() as session:
            return artifacts.resolved_config(session, self._settings, self._claim)

    def _follow(self, process: RunProcess) -> int:
        """Turns what the process appends into rows until it exits."""
        flush_at = 0.0
        while (exit_code := process.poll()) is None:
            self._enforce(process)
            if time.monotonic() >= flush_at:
                flush_at = time.monotonic() + self._try_flush(process)
            process.wait(_LOOK_SECONDS)
        return exit_code

    def _enforce(self, process: RunProcess) -> None:
        if self._is_lost:
            raise Abandoned("it is no longer this worker's")
        if self._silence() > self._silence_seconds:
            raise Abandoned(f"the database was silent for {self._silence():.0f} s")
        if self._stop_by is not None and time.monotonic() > self._stop_by:
            process.kill()

    def _silence(self) -> float:
        return time.monotonic() - self._last_word

    # The heartbeat, on a thread of its own: neither a busy trainer nor a long transaction delays it.

    def _beat(self) -> None:
        while not self._over.wait(self._settings.beat_seconds):
            try:
                with self._database.write() as session:
                    desired = queue.guard(session, self._claim)
            except NotYours:
                self._lose()
                return
            except SQLAlchemyError as error:
                logger.warning("%s: no heartbeat: %s", self._name, error)
                continue
            self._last_word = time.monotonic()
            if desired is not Desired.RUN:
                self.ask_to_stop()

    def _lose(self) -> None:
        with self._lock:
            self._is_lost = True
            process = self._process
        if process is not None and not self._over.is_set():
            process.kill()

    def _count_fenced(self) -> None:
        """Says that the guard refused this attempt; no more than a number for the operator."""
        try:
            with self._database.write() as session:
                Signals(session).count_fenced()
        except SQLAlchemyError as error:
            logger.warning("%s: not counted as fenced: %s", self._name, error)

    # Rows.

    def _try_flush(self, process: RunProcess) -> float:
        """Stores one batch, or leaves it for later in an outage; the seconds until the next one."""
        batch = self._tails.read()
        try:
            self._store(batch, process)
        except NotYours as error:
            self._lose()
            raise Abandoned("it is no longer this worker's") from error
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            return _RETRY_SECONDS
        return 0.0 if batch.is_full else min(_FLUSH_SECONDS, self._settings.beat_seconds)

    def _store(self, batch: Batch, process: RunProcess) -> bool:
        """Makes rows of a batch, in one transaction; False when there was nothing to store."""
        if batch.is_empty and self._is_started_row:
            return False
        try:
            with self._database.write() as session:
                self._write_batch(session, batch, process)
        except SQLAlchemyError as error:
            if is_outage(error):
                raise
            logger.exception("%s: a batch cannot be stored", self._name)
            refused = Batch(
                messages=[("warning", f"records were left out: {type(error).__name__}")],
                progress_bytes=batch.progress_bytes,
                log_bytes=batch.log_bytes,
                rollout_bytes=batch.rollout_bytes,
            )
            with self._database.write() as session:
                self._write_batch(session, refused, process)
        self._is_started_row = True
        self._last_word = time.monotonic()
        self._tails.advance(batch)
        return True

    def _write_batch(self, session: Session, batch: Batch, process: RunProcess) -> None:
        claim = self._claim
        if not self._is_started_row:
            queue.start(session, claim, process.pid)
        if batch.progress is not None:
            queue.report_progress(session, claim, *batch.progress)
        if batch.metrics:
            queue.append_metrics(session, claim, batch.metrics)
        if batch.spent is not None:
            queue.report_spending(session, claim, batch.spent)
        if batch.rollouts:
            queue.append_rollouts(session, claim, batch.rollouts)
        for manifest in batch.checkpoints:
            queue.record_checkpoint(session, claim, self._state_row(manifest))
            self._publisher.offer(manifest.directory)
        for level, message in batch.messages:
            queue.add_event(session, claim, level=level, message=message)
        if batch.log:
            queue.append_log(session, claim, self._tails.num_chunks, batch.log)

    def _state_row(self, manifest: Manifest) -> CheckpointRow:
        return CheckpointRow(
            kind="state",
            step=manifest.step,
            path=artifacts.relative_path(self._settings, manifest.directory),
            manifest_sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
        )

    # The end.

    def _finish(self, ending: Ending) -> None:
        """Stores what is left of the files, then the ending with its rows in one transaction."""
        if (process := self._process) is not None:
            while self._insistently(lambda: self._store(self._tails.read(is_final=True), process)):
                continue
        manifest: Manifest | None = None
        if ending.outcome is Outcome.SUCCEEDED:
            try:
                manifest = read_manifest(self._directory)
                self._publisher.publish(self._directory)
            except ValueError as error:
                ending = Ending(Outcome.INFRA, "manifest", str(error), ending.exit_code)
            except StoreUnavailable as error:  # the next attempt finds the work done, and pushes it
                manifest, ending = None, Ending(Outcome.INFRA, "object_store", str(error)[:500], ending.exit_code)
        self._publisher.close(0.0 if manifest else self._settings.stop_seconds)
        try:
            self._insistently(lambda: self._write_ending(ending, manifest))
        except (ValueError, OSError, SQLAlchemyError) as error:  # what it left is not what its kind promises
            if manifest is None:
                raise
            logger.exception("%s: its output cannot be stored", self._name)
            message = f"its output cannot be stored: {type(error).__name__}: {str(error)[:500]}"
            failed = Ending(Outcome.INFRA, "output", message, ending.exit_code)
            self._insistently(lambda: self._write_ending(failed, None))

    def _write_ending(self, ending: Ending, manifest: Manifest | None) -> None:
        collected = None
        if manifest is not None:
            collected = self._kinds[self._claim.kind].collect(self._settings, manifest)
        with self._database.write() as session:
            decision = queue.finish(
                session,
                self._claim,
                ending.outcome,
                ending.exit_code,
                ending.message,
                collected,
                self._tails.resumed_from_step,
                error_code=ending.code,
                max_infra_failures=self._settings.max_infra_failures,
            )
            if decision.state is RunState.SUCCEEDED and not (self._directory / CHECKPOINTS).exists():
                forget_states(session, self._claim.run_id, self._claim.attempt)
        self._ending = str(ending.outcome)
        logger.info("%s: %s, now %s %s", self._name, ending.outcome, decision.state, decision.reason)

    def _insistently(self, work: Callable[[], T]) -> T:
        """The result of a piece of database work, tried again through an outage.

        Raises:
            Abandoned: the attempt is another's, or the database stays silent.
        """
        while True:
            try:
                return work()
            except NotYours as error:
                raise Abandoned("it is no longer this worker's") from error
            except SQLAlchemyError as error:
                if not is_outage(error):
                    raise
                hurry = self._silence_seconds if self._stop_by is None else _HURRY_SECONDS
                limit = min(hurry, self._silence_seconds)
                if self._is_lost or self._silence() > limit:
                    raise Abandoned(f"the database was silent for {self._silence():.0f} s") from error
            time.sleep(min(_RETRY_SECONDS, self._settings.beat_seconds))
