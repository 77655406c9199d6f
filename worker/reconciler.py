"""Repairs what crashed and decides what is due: rings for queued runs, takes back runs of silent workers, ends
back-offs, spent budgets and the rungs of searches, cleans up; and fires what is due.

Safe to run twice, in any process: every step is a compare-and-set, and silence is measured by this process's own clock.
"""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from store import logs
from store.budgets import enforce
from store.database import Database
from store.deliveries import prune
from store.doorbell import due_for_ring, mark_rung, ring
from store.ids import encode_id
from store.reaper import SilenceWatch, promote_waiting, reap
from store.repositories.keys import Keys
from store.repositories.signals import Signals
from store.repositories.workers import Workers
from store.schedules import fire_schedules
from store.search import advance_searches
from store.settings import Settings
from store.triggers import fire_due
from store.verdicts import advance

_CLEAN_UP_SECONDS = 60.0
_NOTE_SECONDS = 5.0
_FORGET_WORKER_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class Reconciler:
    """The repairs of one process, and what it has seen of the heartbeats so far."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is seen yet: every run has a whole lease.

        Args:
            clock: monotonic seconds.
        """
        self._settings, self._database, self._clock = settings, database, clock
        self._watch = SilenceWatch(settings.lease_seconds, clock)
        self._clean_up_at = self._note_at = clock()
        self._lock = threading.Lock()

    def tick(self) -> None:
        """One round of all repairs. A database error ends it, and every run gets a whole lease again."""
        with self._lock:
            try:
                self._reap()
                with self._database.write() as session:
                    promote_waiting(session)
                self._enforce_budgets()
                with self._database.write() as session:
                    advance_searches(session)
                fire_schedules(self._database, self._settings)
                self._judge()
                self.ring_queued()
                self._clean_up()
                self._note_success()
            except SQLAlchemyError as error:
                self._watch.reset()
                logger.warning("a round of repairs failed: %s", error)

    def ring_queued(self) -> None:
        """Rings for queued runs of which no worker was told, or for which nobody came; nothing without a broker."""
        if not self._settings.broker_url:
            return
        with self._database.read() as session:
            due = due_for_ring(session)
        if not due:
            return
        # Marked first: who hears the ring would pass over a run whose row is still locked by its mark.
        with self._database.write() as session:
            mark_rung(session, [run.run_id for run in due])
        for run in due:
            if not ring(self._settings, run.queue):
                return  # the broker is away: rung for again when the mark is old

    def _judge(self) -> None:
        """Asks for the verdicts that are due, and decides those whose evaluations are over."""
        fire_due(self._database, self._settings)
        for verdict_id in advance(self._database):
            logger.info("%s is decided", encode_id("vrd", verdict_id))

    def _reap(self) -> None:
        with self._database.write() as session:
            reaped = reap(session, self._watch, self._settings.max_infra_failures)
        for run_id in reaped:
            with logs.bound(run_id=encode_id("run", run_id)):
                logger.warning("%s: its worker fell silent", encode_id("run", run_id))

    def _note_success(self) -> None:
        """Leaves word of a whole round, every few seconds: Prometheus looks no more often."""
        if self._clock() < self._note_at:
            return
        self._note_at = self._clock() + _NOTE_SECONDS
        with self._database.write() as session:
            Signals(session).note_success()

    def _enforce_budgets(self) -> None:
        with self._database.write() as session:
            ended = enforce(session)
        for run_id in ended:
            logger.info("%s: its budget is spent", encode_id("run", run_id))

    def _clean_up(self) -> None:
        if self._clock() < self._clean_up_at:
            return
        self._clean_up_at = self._clock() + _CLEAN_UP_SECONDS
        with self._database.write() as session:
            Keys(session).prune()
            prune(session)
            Workers(session).remove_silent(_FORGET_WORKER_SECONDS)
