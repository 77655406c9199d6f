"""Deliveries as those who send see them: claim what is due, send outside any transaction, record what came of it.

A claim counts the tries up by compare-and-set, so that of several senders one has it; it is lost when nothing is
recorded within `LEASE_SECONDS`, and the next sender tries again with the same `webhook-id`: at least once.
"""

import base64
import random
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, delete, exists, insert, select, update
from sqlalchemy.orm import Session

from store.database import database_time
from store.ids import encode_id
from store.models.notification import Delivery, DeliveryTry, Notification, WebhookEndpoint
from store.notifications import MAX_TRIES, message_id, payload, publish
from store.text import clean_text

LEASE_SECONDS = 120.0
"""After this long a try of which nothing is recorded is lost. Longer than any try takes."""
RETRY_SECONDS = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 28_800.0, 28_800.0)
"""Waiting after the first, second, ... failure: eight tries in a day, each varied by a fifth."""
MAX_RETRY_AFTER_SECONDS = 86_400.0
"""Longest wait that an answer's Retry-After may ask for."""
GIVE_UP_AFTER = timedelta(days=5)
"""Failures alone for so long disable an endpoint."""
ROTATION = timedelta(hours=24)
"""How long the former secret signs as well."""
KEPT_CHARACTERS = 1000
"""Of an answer's body."""

_jitter = random.Random()


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed try."""

    delivery_id: UUID
    n: int
    """The number of the try: what it is recorded under."""
    endpoint_id: UUID
    channel: dict[str, Any]
    secrets: list[str] = field(repr=False)
    """To sign with, the current one first; none for e-mail."""
    message_id: str
    """The same in every try."""
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a try."""

    error: str = ""
    """Why it failed; empty for a success."""
    code: int | None = None
    """HTTP status or SMTP reply."""
    body: str = ""
    retry_after_seconds: float = 0.0
    """What the answer asks for."""
    is_gone: bool = False
    """The receiver wants nothing more, ever: HTTP 410."""
    duration_milliseconds: int = 0


def new_secret() -> str:
    """A secret of Standard Webhooks: `whsec_` and 32 random bytes in base64."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def retry_seconds(num_failures: int) -> float:
    """How long to wait after so many failures in a row; varied by up to a fifth."""
    return RETRY_SECONDS[min(num_failures, len(RETRY_SECONDS)) - 1] * _jitter.uniform(0.8, 1.2)


def _due(moment: datetime, full: Collection[UUID]) -> Select[UUID, int, UUID]:
    return (
        select(Delivery.id, Delivery.tries, Delivery.endpoint_id)
        .join(WebhookEndpoint, WebhookEndpoint.id == Delivery.endpoint_id)
        .where(
            Delivery.status == "pending",
            Delivery.available_at <= moment,
            WebhookEndpoint.is_enabled,
            Delivery.endpoint_id.not_in(full),
        )
        .order_by(Delivery.available_at, Delivery.id)
    )


def is_any_due(session: Session, full: Collection[UUID] = ()) -> bool:
    """Whether a claim would find something."""
    return session.execute(_due(database_time(session), full).limit(1)).first() is not None


def claim_due(session: Session, full: Collection[UUID] = ()) -> Due | None:
    """Takes the delivery that has been due the longest; None where there is none, or another sender was faster.

    Args:
        full: endpoints that have enough tries at hand: a slow receiver holds up nobody else.
    """
    moment = database_time(session)
    found = session.execute(_due(moment, full).limit(1)).first()
    if found is None:
        return None
    take = (
        update(Delivery)
        .where(Delivery.id == found.id, Delivery.status == "pending", Delivery.tries == found.tries)
        .values(tries=found.tries + 1, available_at=moment + timedelta(seconds=LEASE_SECONDS))
        .returning(Delivery.id)
    )
    if session.execute(take).scalar_one_or_none() is None:
        return None
    n = found.tries + 1
    session.execute(insert(DeliveryTry), [{"delivery_id": found.id, "n": n, "started_at": moment}])
    query = (
        select(WebhookEndpoint, Notification)
        .join(Delivery, Delivery.endpoint_id == WebhookEndpoint.id)
        .join(Notification, Notification.id == Delivery.notification_id)
        .where(Delivery.id == found.id)
    )
    endpoint, notification = session.execute(query).one()
    return Due(
        found.id,
        n,
        endpoint.id,
        endpoint.channel,
        _secrets(endpoint, moment),
        message_id(notification.id),
        payload(notification),
    )


def _secrets(endpoint: WebhookEndpoint, moment: datetime) -> list[str]:
    until = endpoint.previous_secret_until
    is_rotating = endpoint.previous_secret and until is not None and until > moment
    return [endpoint.secret, *([endpoint.previous_secret] if is_rotating else [])] if endpoint.secret else []


def record(session: Session, due: Due, answer: Answer) -> bool:
    """Writes down what came of a try; False, and nothing, where the claim was lost meanwhile."""
    moment = database_time(session)
    held = (
        select(Delivery)
        .where(Delivery.id == due.delivery_id, Delivery.tries == due.n, Delivery.status == "pending")
        .with_for_update()
    )
    delivery = session.scalar(held)
    if delivery is None:
        return False
    session.execute(
        update(DeliveryTry)
        .where(DeliveryTry.delivery_id == due.delivery_id, DeliveryTry.n == due.n)
        .values(
            ended_at=moment,
            response_code=answer.code,
            response_body=clean_text(answer.body, KEPT_CHARACTERS),
            error=clean_text(answer.error, 500),
            duration_milliseconds=answer.duration_milliseconds,
        )
    )
    endpoint = session.scalars(
        select(WebhookEndpoint).where(WebhookEndpoint.id == due.endpoint_id).with_for_update()
    ).one()
    if not answer.error:
        delivery.status, delivery.finished_at = "delivered", moment
        endpoint.failing_since = None
        session.flush()
        return True
    delivery.tries_left -= 1
    if answer.is_gone or delivery.tries_left <= 0:
        delivery.status, delivery.finished_at = "failed", moment
    else:
        wait = max(
            retry_seconds(MAX_TRIES - delivery.tries_left), min(answer.retry_after_seconds, MAX_RETRY_AFTER_SECONDS)
        )
        delivery.available_at = moment + timedelta(seconds=wait)
    endpoint.failing_since = endpoint.failing_since or moment
    session.flush()
    if answer.is_gone:
        _disable(session, endpoint, "it answered 410: it wants nothing more", moment)
    elif moment - endpoint.failing_since >= GIVE_UP_AFTER:
        _disable(session, endpoint, f"every try has failed for {GIVE_UP_AFTER.days} days", moment)
    return True


def _disable(session: Session, endpoint: WebhookEndpoint, reason: str, moment: datetime) -> None:
    if not endpoint.is_enabled:
        return
    endpoint.is_enabled, endpoint.disabled_reason, endpoint.updated_at = False, reason, moment
    session.flush()
    data = {"reason": reason, "description": endpoint.description, "channel": endpoint.channel["kind"]}
    publish(session, "webhook_endpoint.disabled", encode_id("whk", endpoint.id), data, endpoint.project_id)


def prune(session: Session, keep: timedelta = timedelta(days=30), limit: int = 1000) -> None:
    """Removes old notifications of which no delivery is pending, with their deliveries; some at a time."""
    is_pending = exists().where(Delivery.notification_id == Notification.id, Delivery.status == "pending")
    old = (
        select(Notification.id)
        .where(Notification.created_at < database_time(session) - keep, ~is_pending)
        .order_by(Notification.created_at)
        .limit(limit)
    )
    identifiers = list(session.scalars(old))
    if identifiers:
        session.execute(delete(Delivery).where(Delivery.notification_id.in_(identifiers)))
        session.execute(delete(Notification).where(Notification.id.in_(identifiers)))
