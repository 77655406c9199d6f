"""What one supervising process does: it takes runs from the queue, supervises them, and drains."""

import logging
import socket
import threading
from collections.abc import Mapping, Sequence

from store import claims
from store.database import Database
from store.disk import disk_of
from store.ids import new_id
from store.objects import object_store
from store.settings import Settings
from worker.attempt import SILENCE_SECONDS, SupervisedAttempt
from worker.gpus import Gpus
from worker.kinds import KINDS, Kind

logger = logging.getLogger(__name__)


class Supervisor:
    """Takes runs and supervises them; one per process, its methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        dispatcher: str,
        slots: int,
        kinds: Mapping[str, Kind] = KINDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        """Nothing is taken yet.

        Args:
            dispatcher: `local` or `celery`.
            slots: runs that the process supervises at a time; the caller sees to it.
        """
        self.settings, self.database = settings, database
        self.worker_id = new_id()
        self.host = socket.gethostname()
        self.dispatcher, self.slots = dispatcher, slots
        self._kinds, self._silence_seconds = kinds, silence_seconds
        self._gpus = Gpus(settings.data_dir / "locks", settings.gpu_indices)
        object_store(settings)  # one that cannot be used is told at the start, not at the end of a run
        self._attempts: set[SupervisedAttempt] = set()
        self._lock = threading.Lock()
        self._is_full = False
        self._drain_within: float | None = None
        self._draining = threading.Event()

    def take(self, queues: Sequence[str]) -> SupervisedAttempt | None:
        """Claims the next run of the queues that fits; None where there is none, while draining or on a full disk.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be asked.
        """
        if self.is_draining or self._has_no_room():
            return None
        with self._gpus.offer() as offer:
            with self.database.write() as session:
                claim = claims.claim(
                    session,
                    worker_id=self.worker_id,
                    queues=queues,
                    labels=self.settings.label_list,
                    free_gpus=offer.indices,
                    dispatcher=self.dispatcher,
                    host=self.host,
                )
            if claim is None:
                return None
            hold = offer.keep(claim.gpus)
        attempt = SupervisedAttempt(self.settings, self.database, self._kinds, claim, hold, self._silence_seconds)
        with self._lock:
            self._attempts.add(attempt)
            if self._draining.is_set():
                attempt.ask_to_stop(self._drain_within)
        return attempt

    def _has_no_room(self) -> bool:
        """Whether the disk is too full to begin anything: queued runs wait until there is room again."""
        is_full = disk_of(self.settings).is_full
        if is_full and not self._is_full:
            logger.warning("the disk of the artifacts is full: no run is taken until there is room")
        self._is_full = is_full
        return is_full

    def supervise(self, attempt: SupervisedAttempt) -> None:
        """Follows a taken run to its end."""
        try:
            attempt.run()
        finally:
            with self._lock:
                self._attempts.discard(attempt)

    def drain(self, within_seconds: float | None = None) -> None:
        """Takes no more runs; those at hand checkpoint and are queued again. A second call can shorten the time.

        Args:
            within_seconds: time they have before they are killed; None for the settings' `stop_seconds`.
        """
        logger.info("draining")
        self._draining.set()
        with self._lock:
            self._drain_within = within_seconds
            attempts = list(self._attempts)
        for attempt in attempts:
            attempt.ask_to_stop(within_seconds)

    @property
    def is_draining(self) -> bool:
        """Nothing more is taken."""
        return self._draining.is_set()

    @property
    def num_active(self) -> int:
        """Runs at hand."""
        with self._lock:
            return len(self._attempts)
