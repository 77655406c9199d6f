"""What the wire shows of alerts: endpoints, deliveries and their tries."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Wire
from store.egress import Channel


class WebhookEndpointRead(Wire):
    """Somebody who is told what happens: by webhook or by mail."""

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    description: str
    channel: Channel
    """How it is told."""
    event_types: list[str]
    """What it is told: `job.failed`, every event of a family by `job.*`, or all by `*`."""
    is_enabled: bool
    disabled_reason: str
    """Why the platform gave it up; empty where it did not."""
    failing_since: datetime | None
    """The first failed try since the last success; null while it works."""
    previous_secret_until: datetime | None
    """Until then deliveries are signed with the former secret, too; null where none is in rotation."""
    created_at: datetime
    updated_at: datetime


class WebhookEndpointSecret(WebhookEndpointRead):
    """An endpoint with its new secret."""

    secret: str
    """What signatures are verified with; shown this once. Empty for a mail, and in a replayed reply."""


class WebhookTryRead(Wire):
    """One try of a delivery."""

    object: Literal["webhook_try"] = "webhook_try"
    number: int
    """From 1."""
    started_at: datetime
    ended_at: datetime | None
    """null while it goes on, and for ever where its worker was killed."""
    response_code: int | None
    """HTTP status, or reply of the mail server; null where there was none."""
    response_body: str
    """The first characters of the answer."""
    error: str
    """Why it failed; empty for a success."""
    duration_seconds: float | None


class WebhookDeliveryRead(Wire):
    """One event on its way to one endpoint."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    id: str
    endpoint_id: str
    webhook_id: str
    """The `webhook-id` of every try: by it a receiver knows a repetition."""
    type: str
    """What happened."""
    object_id: str
    """What it happened to."""
    payload: dict[str, Any]
    """What is sent."""
    status: Literal["pending", "delivered", "failed"]
    tries: list[WebhookTryRead]
    next_try_at: datetime | None
    """Not before then; null where no try follows."""
    created_at: datetime
    finished_at: datetime | None


class EventTypeRead(Wire):
    """A kind of event that an endpoint may ask for."""

    object: Literal["event_type"] = "event_type"
    id: str
    """Its name."""
    description: str
    """When it is sent."""
