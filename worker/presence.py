"""What a supervising process does beside its runs: it says that it is there, it repairs, and it sends alerts."""

import logging
import os
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from store.repositories.workers import Workers
from worker import alerts, housekeeping, watchers
from worker.reconciler import Reconciler
from worker.supervisor import Supervisor

_ANNOUNCE_SECONDS = 2.0
_RECONCILE_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Periodic(threading.Thread):
    """Calls a function again and again until it is stopped, also after a call that failed."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Not started yet.

        Args:
            seconds: between the end of a call and the next.
        """
        super().__init__(name=name, daemon=True)
        self._seconds, self._work = seconds, work
        self._stopped = threading.Event()

    def run(self) -> None:
        """Calls the function until `stop`."""
        while True:
            try:
                self._work()
            except SQLAlchemyError as error:
                logger.warning("%s: %s", self.name, error)
            except Exception:
                logger.exception("%s failed", self.name)
            if self._stopped.wait(self._seconds):
                return

    def stop(self) -> None:
        """Ends it after the call at hand."""
        self._stopped.set()
        if self.is_alive():
            self.join()


class Presence:
    """The row in `workers` of a supervising process, kept fresh, and its share of repairs, cleaning and alerts."""

    def __init__(self, supervisor: Supervisor, reconciler: Reconciler) -> None:
        """Not started yet."""
        self._supervisor = supervisor
        lease = supervisor.settings.lease_seconds
        self._alerts = alerts.Alerts(supervisor.settings, supervisor.database)
        self._threads = [
            Periodic("announce", _ANNOUNCE_SECONDS, self.announce),
            Periodic("reconcile", min(_RECONCILE_SECONDS, lease / 5), reconciler.tick),
            # A thread of its own: removing much takes minutes, in which silent runs are to be taken back all the same.
            Periodic(
                "housekeeping",
                housekeeping.LOOK_SECONDS,
                housekeeping.Housekeeper(supervisor.settings, supervisor.database).tick,
            ),
            Periodic("alerts", alerts.LOOK_SECONDS, self._alerts.tick),
            Periodic("watch", watchers.LOOK_SECONDS, watchers.Watchers(supervisor.settings, supervisor.database).tick),
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def announce(self) -> None:
        """Registers the process, or says that it still lives."""
        worker, settings = self._supervisor, self._supervisor.settings
        with worker.database.write() as session:
            workers = Workers(session)
            if not workers.seen(worker.worker_id, is_draining=worker.is_draining):
                workers.register(
                    host=worker.host,
                    pid=os.getpid(),
                    dispatcher=worker.dispatcher,
                    queues=settings.queue_list,
                    labels=settings.label_list,
                    slots=worker.slots,
                    gpus=settings.gpu_indices,
                    worker_id=worker.worker_id,
                )

    def stop(self) -> None:
        """Stops the threads and forgets the process."""
        for thread in self._threads:
            thread.stop()
        self._alerts.stop()
        try:
            with self._supervisor.database.write() as session:
                Workers(session).remove(self._supervisor.worker_id)
        except SQLAlchemyError as error:  # it is forgotten when it has been silent for long enough
            logger.warning("not signed off: %s", error)
