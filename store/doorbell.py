"""The doorbell: a Celery message that says "look at queue X" and nothing else.

Losing, doubling or delaying one changes latency only.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from store.database import database_time, now_expression
from store.models.run import Run
from store.settings import Settings
from store.states import Desired, RunState

WAKE = "lco.wake"
"""Name of the Celery task; its only argument is the queue."""
RING_AGAIN_SECONDS = 10.0
"""After this long a queued run that nobody took is rung for again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ring:
    """A queued run that no worker has been told of, or nobody came for."""

    run_id: UUID
    queue: str


def due_for_ring(session: Session, limit: int = 100) -> list[Ring]:
    """Claimable runs to ring for, most urgent first: one ring each, since a ring wakes one slot."""
    moment = database_time(session)
    due = (
        select(Run.id, Run.queue)
        .where(
            Run.state == RunState.QUEUED,
            Run.desired == Desired.RUN,
            Run.available_at <= moment,
            or_(Run.hint_at.is_(None), Run.hint_at < moment - timedelta(seconds=RING_AGAIN_SECONDS)),
        )
        .order_by(Run.priority.desc(), Run.available_at, Run.id)
        .limit(limit)
    )
    return [Ring(row.id, row.queue) for row in session.execute(due)]


def mark_rung(session: Session, run_ids: Iterable[UUID]) -> None:
    """Notes that the doorbell was rung for runs that are still queued."""
    rung = update(Run).where(Run.id.in_(list(run_ids)), Run.state == RunState.QUEUED)
    session.execute(rung.values(hint_at=now_expression(session)))


def ring(settings: Settings, queue: str) -> bool:
    """Rings for a queue, as best effort, after the commit; says whether a broker took it."""
    if not settings.broker_url:
        return False
    try:
        _sender(settings.broker_url).send_task(WAKE, args=[queue], queue=queue, ignore_result=True, retry=False)
    except Exception as error:
        _log.warning("could not ring %s: %s", queue, error)
        return False
    return True


@cache
def _sender(broker_url: str) -> Any:
    from celery import Celery  # here: the embedded platform does not pay for its import

    app = Celery("lco", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_transport_options={
            "max_retries": 0,  # of connecting; the sweep tries again
            "socket_timeout": 1,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
            "visibility_timeout": 3600,
        },
    )
    return app
