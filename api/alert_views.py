"""Rows of alerts as what the wire shows."""

from collections.abc import Sequence

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from api.alert_schemas import WebhookDeliveryRead, WebhookEndpointRead, WebhookTryRead
from store.egress import Channel
from store.ids import encode_id
from store.models.notification import Delivery, DeliveryTry, WebhookEndpoint
from store.notifications import message_id, payload
from store.repositories.webhooks import Deliveries

_CHANNEL: TypeAdapter[Channel] = TypeAdapter(Channel)


def endpoint(row: WebhookEndpoint) -> WebhookEndpointRead:
    """An endpoint without its secret."""
    return WebhookEndpointRead(
        id=encode_id("whk", row.id),
        description=row.description,
        channel=_CHANNEL.validate_python(row.channel),
        event_types=row.event_types,
        is_enabled=row.is_enabled,
        disabled_reason=row.disabled_reason,
        failing_since=row.failing_since,
        previous_secret_until=row.previous_secret_until,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def deliveries(session: Session, rows: Sequence[Delivery]) -> list[WebhookDeliveryRead]:
    """Deliveries with their tries."""
    found = Deliveries(session)
    notifications = found.notifications(rows)
    tries = found.tries(row.id for row in rows)
    return [
        WebhookDeliveryRead(
            id=encode_id("dlv", row.id),
            endpoint_id=encode_id("whk", row.endpoint_id),
            webhook_id=message_id(row.notification_id),
            type=notifications[row.notification_id].type,
            object_id=notifications[row.notification_id].object_id,
            payload=payload(notifications[row.notification_id]),
            status=row.status,
            tries=[_try(attempt) for attempt in tries.get(row.id, [])],
            next_try_at=row.available_at if row.status == "pending" else None,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )
        for row in rows
    ]


def _try(row: DeliveryTry) -> WebhookTryRead:
    milliseconds = row.duration_milliseconds
    return WebhookTryRead(
        number=row.n,
        started_at=row.started_at,
        ended_at=row.ended_at,
        response_code=row.response_code,
        response_body=row.response_body,
        error=row.error,
        duration_seconds=None if milliseconds is None else milliseconds / 1000,
    )
