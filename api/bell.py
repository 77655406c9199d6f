"""Rings the doorbell for what a request has queued, after its commit, as best effort: the reconciler rings again."""

import logging

from store.database import Database
from store.doorbell import due_for_ring, mark_rung, ring
from store.settings import Settings

logger = logging.getLogger("lco.api")


def ring_due(database: Database, settings: Settings) -> None:
    """Rings once per run that waits for a worker, until the broker fails to answer; does nothing without a broker."""
    if not settings.broker_url:
        return
    rung = []
    try:
        with database.read() as session:
            due = due_for_ring(session)
        for one in due:
            if not ring(settings, one.queue):
                break
            rung.append(one.run_id)
        if rung:
            with database.write() as session:
                mark_rung(session, rung)
    except Exception as error:  # the work is committed: nothing here may fail its request
        logger.warning("could not ring for queued runs: %s", type(error).__name__)
