"""The supervisor without a broker, `python -m worker.local`: one process polls SQL for all its slots, and repairs."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from store import logs, tracing
from store.database import Database, is_current, make_engine
from store.settings import Settings
from worker.attempt import SupervisedAttempt
from worker.kinds import KINDS, Kind
from worker.presence import Presence
from worker.reconciler import Reconciler
from worker.supervisor import Supervisor

_LOOK_SECONDS = 0.1
_OUTAGE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class LocalLoop:
    """Claims runs for a number of slots, a thread each, until it is asked to drain."""

    def __init__(self, settings: Settings, database: Database, kinds: Mapping[str, Kind] = KINDS) -> None:
        """Nothing is started yet."""
        self._settings, self._database = settings, database
        self.supervisor = Supervisor(settings, database, dispatcher="local", slots=settings.slots, kinds=kinds)
        self._presence = Presence(self.supervisor, Reconciler(settings, database))
        self._threads: list[threading.Thread] = []
        self._num_signals = 0

    def on_signal(self, number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Asks for a drain; a second time, for a quick one. Takes no lock: it runs between any two instructions."""
        self._num_signals += 1

    def run(self) -> None:
        """Serves the queues until a drain has ended."""
        if not self._wait_for_schema():
            return
        self._presence.start()
        queues = self._settings.queue_list
        try:
            while not self._num_signals:
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                if len(self._threads) < self._settings.slots and (attempt := self._take(queues)) is not None:
                    thread = threading.Thread(target=self.supervisor.supervise, args=(attempt,))
                    self._threads.append(thread)
                    thread.start()
                    continue
                self._sleep(self._settings.poll_seconds)
        finally:
            self._drain()
            self._presence.stop()

    def _take(self, queues: list[str]) -> SupervisedAttempt | None:
        try:
            return self.supervisor.take(queues)
        except SQLAlchemyError as error:
            logger.warning("the queue cannot be read: %s", error)
            self._sleep(_OUTAGE_SECONDS)
            return None

    def _drain(self) -> None:
        self.supervisor.drain()
        asked = self._num_signals
        while any(thread.is_alive() for thread in self._threads):
            if self._num_signals > max(asked, 1):
                asked = self._num_signals
                self.supervisor.drain(within_seconds=0)
            time.sleep(_LOOK_SECONDS / 2)

    def _wait_for_schema(self) -> bool:
        """Waits until the database is migrated; False when asked to stop meanwhile."""
        is_told = False
        while not self._num_signals:
            try:
                if is_current(self._database.engine):
                    return True
                reason = "it is not at the newest migration"
            except SQLAlchemyError as error:
                reason = str(error)
            if not is_told:
                logger.warning("waiting for the database: %s", reason)
                is_told = True
            self._sleep(_OUTAGE_SECONDS)
        return False

    def _sleep(self, seconds: float) -> None:
        """Sleeps, though not past a signal."""
        until = time.monotonic() + seconds
        while not self._num_signals and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_SECONDS))


def serve(settings: Settings, kinds: Mapping[str, Kind] = KINDS) -> int:
    """The process: serves until SIGTERM or SIGINT, then drains. Its exit status."""
    logs.configure(settings, own=("worker", "store"))
    tracing.start("lco-worker")
    database = Database(make_engine(settings))
    loop = LocalLoop(settings, database, kinds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, loop.on_signal)
    try:
        loop.run()
    finally:
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(serve(Settings.from_environment()))
