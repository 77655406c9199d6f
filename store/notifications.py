"""The outbox: what happened is written in the transaction in which it did, with a delivery to each that wants to know.

So an alert is sent exactly if its cause was committed, whatever is killed when. Sending is the worker's.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.database import database_time
from store.ids import encode_id, new_id
from store.models.notification import Delivery, Notification, WebhookEndpoint
from store.text import clean_json

MAX_TRIES = 8
"""Failures after which a delivery is given up."""
EVENT_TYPES: dict[str, str] = {
    "job.succeeded": "Every run of a job has succeeded.",
    "job.failed": "A job has ended, and a run of it failed.",
    "job.cancelled": "A job has ended, and a run of it was cancelled.",
    "job.paused": "A job does not go on until it is resumed.",
    "experiment.succeeded": "Every job of an experiment has succeeded.",
    "experiment.failed": "An experiment has ended, and a job of it failed.",
    "experiment.cancelled": "An experiment has ended, and a job of it was cancelled.",
    "verdict.pass": "A suite has judged a checkpoint: it is no worse than the baseline.",
    "verdict.improved": "A suite has judged a checkpoint: it is better than the baseline.",
    "verdict.regressed": "A suite has judged a checkpoint: it is worse than the baseline.",
    "verdict.inconclusive": "A suite has judged a checkpoint, and the examples do not decide.",
    "verdict.error": "A suite could not judge a checkpoint.",
    "schedule.failed": "A due schedule could not do what it is for.",
    "disk.low": "A disk of the platform runs full.",
    "webhook_endpoint.disabled": "An endpoint failed for too long, or is gone: it is told nothing more.",
    "webhook_endpoint.test": "A test, sent on request.",
}
"""Everything that is told, and when."""


def matches(patterns: Sequence[str], event_type: str) -> bool:
    """Whether an event is among those that an endpoint wants: `job.failed`, `job.*` or `*`."""
    family = event_type.partition(".")[0]
    return any(pattern in (event_type, f"{family}.*", "*") for pattern in patterns)


def publish(session: Session, type: str, object_id: str, data: dict[str, Any], project_id: UUID) -> UUID:
    """Writes down what happened, in the caller's transaction, and a delivery to each enabled endpoint that wants it.

    Args:
        type: one of `EVENT_TYPES`.
        object_id: the id, as it is shown, of what it is about.
        data: what a reader wants to know at once; no secrets. `id` is added.

    Returns:
        The id of the notification.
    """
    assert type in EVENT_TYPES, type
    endpoints = session.execute(
        select(WebhookEndpoint.id, WebhookEndpoint.event_types)
        .where(WebhookEndpoint.project_id == project_id, WebhookEndpoint.is_enabled)
        .order_by(WebhookEndpoint.id)
    ).all()
    wanting = [endpoint.id for endpoint in endpoints if matches(endpoint.event_types, type)]
    return deliver_to(session, wanting, type, object_id, data, project_id)


def deliver_to(
    session: Session, endpoint_ids: Sequence[UUID], type: str, object_id: str, data: dict[str, Any], project_id: UUID
) -> UUID:
    """Writes a notification for some endpoints, whatever they want to know; its id."""
    moment = database_time(session)
    notification_id = new_id()
    told = {
        "id": notification_id,
        "project_id": project_id,
        "type": type,
        "object_id": object_id,
        "data": clean_json(data),
        "created_at": moment,
    }
    session.execute(insert(Notification), [told])
    deliveries = [
        {
            "id": new_id(),
            "notification_id": notification_id,
            "endpoint_id": endpoint_id,
            "status": "pending",
            "tries": 0,
            "tries_left": MAX_TRIES,
            "available_at": moment,
            "created_at": moment,
        }
        for endpoint_id in endpoint_ids
    ]
    if deliveries:
        session.execute(insert(Delivery), deliveries)
    return notification_id


def payload(notification: Notification) -> dict[str, Any]:
    """What is sent: the same in every try."""
    return {
        "type": notification.type,
        "timestamp": notification.created_at.isoformat().replace("+00:00", "Z"),
        "data": {"id": notification.object_id, **notification.data},
    }


def message_id(notification_id: UUID) -> str:
    """The id by which a receiver knows a repetition: `ntf_...`."""
    return encode_id("ntf", notification_id)
