"""Calls about schedules, webhook endpoints and deliveries."""

from collections.abc import Sequence
from typing import Any, Literal

from api.alert_schemas import WebhookDeliveryRead, WebhookEndpointRead, WebhookEndpointSecret
from api.calls.base import Ask
from api.schedule_schemas import ScheduleRead
from api.transport import Call, body_of

ScheduleVerb = Literal["suspend", "resume", "trigger"]


def create_schedule(spec: Any) -> Ask[ScheduleRead]:
    """A new schedule."""
    return Ask(Call("POST", "/v1/schedules", content=body_of(spec)), ScheduleRead)


def change_schedule(identifier: str, changes: dict[str, Any]) -> Ask[ScheduleRead]:
    """Other fields of a schedule."""
    return Ask(Call("PATCH", f"/v1/schedules/{identifier}", content=body_of(changes)), ScheduleRead)


def schedule_verb(identifier: str, name: ScheduleVerb) -> Ask[ScheduleRead]:
    """suspend, resume or trigger."""
    return Ask(Call("POST", f"/v1/schedules/{identifier}/{name}"), ScheduleRead)


def delete_schedule(identifier: str) -> Call:
    """The end of a schedule."""
    return Call("DELETE", f"/v1/schedules/{identifier}")


def create_endpoint(
    channel: dict[str, Any], event_types: Sequence[str], description: str
) -> Ask[WebhookEndpointSecret]:
    """A new endpoint."""
    spec = {"channel": channel, "event_types": list(event_types), "description": description}
    return Ask(Call("POST", "/v1/webhook_endpoints", content=body_of(spec)), WebhookEndpointSecret)


def change_endpoint(identifier: str, changes: dict[str, Any]) -> Ask[WebhookEndpointRead]:
    """Other fields of an endpoint."""
    return Ask(Call("PATCH", f"/v1/webhook_endpoints/{identifier}", content=body_of(changes)), WebhookEndpointRead)


def delete_endpoint(identifier: str) -> Call:
    """The end of an endpoint."""
    return Call("DELETE", f"/v1/webhook_endpoints/{identifier}")


def rotate_secret(identifier: str) -> Ask[WebhookEndpointSecret]:
    """A new secret of an endpoint."""
    return Ask(Call("POST", f"/v1/webhook_endpoints/{identifier}/rotate_secret"), WebhookEndpointSecret)


def test_endpoint(identifier: str) -> Ask[WebhookDeliveryRead]:
    """A test of an endpoint."""
    return Ask(Call("POST", f"/v1/webhook_endpoints/{identifier}/test"), WebhookDeliveryRead)


def redeliver(identifier: str) -> Ask[WebhookDeliveryRead]:
    """A delivery once more."""
    return Ask(Call("POST", f"/v1/webhook_deliveries/{identifier}/redeliver"), WebhookDeliveryRead)
