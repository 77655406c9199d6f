"""The Celery tasks: `lco.wake` looks at a queue, `lco.tick` repairs. Celery is a doorbell: its messages carry no work.

Messages are acknowledged before they are handled, and may be lost, doubled or late: runs are owned in SQL.
A pool process supervises one run at a time, as a subprocess of its own. It watches a pipe from Celery's main process:
a byte in it means "drain", its end means that the main process was killed.
"""

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any

from celery import Celery, signals
from sqlalchemy.exc import SQLAlchemyError

from store import logs, tracing
from store.database import Database, make_engine
from store.doorbell import WAKE
from store.settings import Settings
from worker.kinds import Kind
from worker.presence import Presence
from worker.reconciler import Reconciler
from worker.supervisor import Supervisor

TICK = "lco.tick"
_LOOK_SECONDS = 0.1
_HURRY_SECONDS = 2.5
"""Time a run has to checkpoint when a pool process is told to end a second time."""

logger = logging.getLogger(__name__)

CONFIGURATION: dict[str, Any] = {
    "broker_transport_options": {
        "visibility_timeout": 3600,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
    },
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_acks_late": False,  # a late one is delivered again, in parallel, after the visibility timeout
    "worker_disable_prefetch": True,  # or a busy worker hoards a ring that an idle one should hear
    "worker_prefetch_multiplier": 1,
    "task_ignore_result": True,
    "result_backend": None,
    "accept_content": ["json"],
    "task_serializer": "json",
    "task_publish_retry": False,
    "task_default_queue": "lco.cpu",
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "beat_schedule": {"tick": {"task": TICK, "schedule": 5.0, "options": {"expires": 10}}},
    "beat_scheduler": "celery.beat:Scheduler",  # one static entry needs no file
}
"""Settings of Celery (not of the platform), the same for worker and beat."""


class Slot:
    """What one pool process needs to supervise runs: made after the fork, for connections do not survive one."""

    def __init__(self, settings: Settings, kinds: Mapping[str, Kind]) -> None:
        """Opens the database and starts to announce and to repair."""
        tracing.start("lco-worker")
        self.database = Database(make_engine(settings))
        self.supervisor = Supervisor(settings, self.database, dispatcher="celery", slots=1, kinds=kinds)
        self.reconciler = Reconciler(settings, self.database)
        self.presence = Presence(self.supervisor, self.reconciler)
        self.presence.start()

    def serve(self, queue: str) -> None:
        """Supervises one run of the queue after the other until nothing there can be taken."""
        try:
            while (attempt := self.supervisor.take([queue])) is not None:
                self._wake_others()
                self.supervisor.supervise(attempt)
        except SQLAlchemyError as error:  # the reconciler rings again
            logger.warning("the queue cannot be read: %s", error)

    def close(self) -> None:
        """Signs off."""
        self.presence.stop()
        self.database.dispose()

    def _wake_others(self) -> None:
        """Rings for what else is queued, so that idle slots start at once and not at the next round of repairs."""
        try:
            self.reconciler.ring_queued()
        except SQLAlchemyError as error:
            logger.warning("could not ring: %s", error)


class Pool:
    """The pool processes of one Celery worker, seen from each of them and from the main process."""

    def __init__(self, settings: Settings, kinds: Mapping[str, Kind]) -> None:
        """Nothing is opened yet: Celery forks first."""
        self._settings, self._kinds = settings, kinds
        self._slot: Slot | None = None
        self._lock = threading.Lock()
        self._main_pid = 0
        self._pipe: tuple[int, int] | None = None
        self._num_signals = 0

    def slot(self) -> Slot:
        """This process's slot, opened at the first call."""
        with self._lock:
            if self._slot is None:
                self._slot = Slot(self._settings, self._kinds)
                threading.Thread(target=self._watch, name="watch", daemon=True).start()
            return self._slot

    # In the main process.

    def on_start(self, **_: Any) -> None:
        """Before the pool is forked."""
        self.require_broker()
        self._main_pid, self._pipe = os.getpid(), os.pipe()

    def on_shutting_down(self, **_: Any) -> None:
        """In the handler of SIGTERM, SIGINT or SIGQUIT: every pool process is to drain."""
        if self._pipe is not None:
            os.write(self._pipe[1], b"d")

    def require_broker(self, **_: Any) -> None:
        """Before worker or beat start: Celery itself would look for one where it is not."""
        if not self._settings.broker_url:
            raise SystemExit("LCO_BROKER_URL is not set: without a broker, start `python -m worker.local`")

    # In a pool process.

    def on_process_start(self, **_: Any) -> None:
        """After the fork."""
        if self._pipe is not None and os.getpid() != self._main_pid:
            os.close(self._pipe[1])  # only the main process may hold it: its end is the message
            signal.signal(signal.SIGTERM, self._on_signal)
        self.slot()

    def on_process_stop(self, **_: Any) -> None:
        """Before a pool process exits."""
        if self._slot is not None:
            self._slot.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._num_signals += 1  # takes no lock: `_watch` sees it

    def _watch(self) -> None:
        """Waits for the word to drain: a byte from the main process, or a signal to this process alone."""
        assert self._slot is not None
        supervisor = self._slot.supervisor
        pipe = select.poll()
        if self._pipe is not None:
            pipe.register(self._pipe[0], select.POLLIN)
        num_seen = 0
        while True:
            events = 0
            for _, event in pipe.poll(0 if supervisor.is_draining else _LOOK_SECONDS * 1000):
                events |= event
            if events & select.POLLHUP:
                os._exit(1)  # the main process is gone; the run checkpoints as its own pipe ends now
            num_signals = self._num_signals
            if not supervisor.is_draining:
                if events or num_signals:
                    supervisor.drain()
            else:
                if num_signals > num_seen:
                    supervisor.drain(_HURRY_SECONDS)
                if num_signals and not supervisor.num_active:
                    os._exit(0)
                time.sleep(_LOOK_SECONDS)
            num_seen = num_signals


def _configure_logs(settings: Settings, **_: Any) -> None:
    logs.configure(settings, logging.INFO)


def make_app(settings: Settings, kinds: Mapping[str, Kind]) -> Celery:
    """The Celery app with its tasks, and what its processes do when they start and stop; one per process."""
    app = Celery("lco", broker=settings.broker_url or None)
    app.conf.update(CONFIGURATION)
    pool = Pool(settings, kinds)

    def wake(queue: str) -> None:
        """Takes runs of a queue until nothing there can be taken."""
        pool.slot().serve(queue)

    def tick() -> None:
        """One round of repairs."""
        pool.slot().reconciler.tick()

    app.task(wake, name=WAKE, shared=False)  # functions: Celery counts the `self` of a method among a task's arguments
    app.task(tick, name=TICK, shared=False)
    if settings.log_format == "json":  # otherwise Celery's own form, and its options, stay
        signals.setup_logging.connect(partial(_configure_logs, settings), weak=False)
    signals.beat_init.connect(pool.require_broker, weak=False)
    signals.worker_init.connect(pool.on_start, weak=False)
    signals.worker_shutting_down.connect(pool.on_shutting_down, weak=False)
    signals.worker_process_init.connect(pool.on_process_start, weak=False)
    signals.worker_process_shutdown.connect(pool.on_process_stop, weak=False)
    return app
