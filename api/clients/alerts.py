"""Schedules, and who is told what happens."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from api import transport
from api.alert_schemas import WebhookDeliveryRead, WebhookEndpointRead, WebhookEndpointSecret
from api.calls import alerts as calls
from api.calls import base
from api.clients.base import Asking, AsyncAsking
from api.schedule_schemas import ScheduleFireRead, ScheduleRead


class Alerts(Asking):
    """Schedules, and who is told what happens."""

    def schedules(self) -> Iterator[ScheduleRead]:
        """Schedules, newest first."""
        return self._all(base.listing("/v1/schedules", ScheduleRead, {}))

    def schedule(self, identifier: str) -> ScheduleRead:
        """One schedule."""
        return self._ask(base.get(identifier, ScheduleRead))

    def create_schedule(self, spec: Any) -> ScheduleRead:
        """Adds a schedule: a dictionary, or a `ScheduleSpec`."""
        return self._ask(calls.create_schedule(spec))

    def change_schedule(self, identifier: str, **changes: Any) -> ScheduleRead:
        """Changes a schedule: name, trigger, action, concurrency."""
        return self._ask(calls.change_schedule(identifier, changes))

    def suspend_schedule(self, identifier: str) -> ScheduleRead:
        """Lets a schedule rest until it is resumed."""
        return self._ask(calls.schedule_verb(identifier, "suspend"))

    def resume_schedule(self, identifier: str) -> ScheduleRead:
        """Lets a schedule go on with its next due time."""
        return self._ask(calls.schedule_verb(identifier, "resume"))

    def trigger_schedule(self, identifier: str) -> ScheduleRead:
        """Fires a schedule now; `last_fire` says what came of it. A watcher looks now instead."""
        return self._ask(calls.schedule_verb(identifier, "trigger"))

    def remove_schedule(self, identifier: str) -> None:
        """Removes a schedule; what it submitted stays."""
        transport.content(self._send(calls.delete_schedule(identifier)))

    def schedule_fires(self, identifier: str) -> Iterator[ScheduleFireRead]:
        """What a schedule did, newest first."""
        return self._all(base.listing(f"/v1/schedules/{identifier}/fires", ScheduleFireRead, {}))

    def webhook_endpoints(self) -> Iterator[WebhookEndpointRead]:
        """Endpoints that are told what happens, newest first."""
        return self._all(base.listing("/v1/webhook_endpoints", WebhookEndpointRead, {}))

    def webhook_endpoint(self, identifier: str) -> WebhookEndpointRead:
        """One endpoint."""
        return self._ask(base.get(identifier, WebhookEndpointRead))

    def create_webhook_endpoint(
        self, channel: dict[str, Any], event_types: Sequence[str] = ("*",), description: str = ""
    ) -> WebhookEndpointSecret:
        """Adds an endpoint; the answer alone shows its secret.

        Args:
            channel: `{"kind": "webhook", "url": ...}` or `{"kind": "email", "to": ...}`.
            event_types: `job.failed`, every event of a family by `job.*`, or all by `*`.
        """
        return self._ask(calls.create_endpoint(channel, event_types, description))

    def change_webhook_endpoint(self, identifier: str, **changes: Any) -> WebhookEndpointRead:
        """Changes an endpoint: channel, event_types, description, is_enabled."""
        return self._ask(calls.change_endpoint(identifier, changes))

    def remove_webhook_endpoint(self, identifier: str) -> None:
        """Removes an endpoint and its log."""
        transport.content(self._send(calls.delete_endpoint(identifier)))

    def rotate_webhook_secret(self, identifier: str) -> WebhookEndpointSecret:
        """Makes a new secret, which the answer alone shows; for a day both sign."""
        return self._ask(calls.rotate_secret(identifier))

    def test_webhook_endpoint(self, identifier: str) -> WebhookDeliveryRead:
        """Sends a test to an endpoint; `webhook_delivery` then says what came of it."""
        return self._ask(calls.test_endpoint(identifier))

    def webhook_deliveries(self, endpoint: str, **filters: Any) -> Iterator[WebhookDeliveryRead]:
        """What an endpoint was told, newest first; filters: status, order."""
        return self._all(base.listing(f"/v1/webhook_endpoints/{endpoint}/deliveries", WebhookDeliveryRead, filters))

    def webhook_delivery(self, identifier: str) -> WebhookDeliveryRead:
        """One delivery with every try."""
        return self._ask(base.get(identifier, WebhookDeliveryRead))

    def redeliver_webhook(self, identifier: str) -> WebhookDeliveryRead:
        """Sends a delivery once more, under the same `webhook-id`."""
        return self._ask(calls.redeliver(identifier))


class AsyncAlerts(AsyncAsking):
    """The same, asynchronously."""

    def schedules(self) -> AsyncIterator[ScheduleRead]:
        """Schedules, newest first."""
        return self._all(base.listing("/v1/schedules", ScheduleRead, {}))

    async def schedule(self, identifier: str) -> ScheduleRead:
        """One schedule."""
        return await self._ask(base.get(identifier, ScheduleRead))

    async def create_schedule(self, spec: Any) -> ScheduleRead:
        """Adds a schedule: a dictionary, or a `ScheduleSpec`."""
        return await self._ask(calls.create_schedule(spec))

    async def change_schedule(self, identifier: str, **changes: Any) -> ScheduleRead:
        """Changes a schedule: name, trigger, action, concurrency."""
        return await self._ask(calls.change_schedule(identifier, changes))

    async def suspend_schedule(self, identifier: str) -> ScheduleRead:
        """Lets a schedule rest until it is resumed."""
        return await self._ask(calls.schedule_verb(identifier, "suspend"))

    async def resume_schedule(self, identifier: str) -> ScheduleRead:
        """Lets a schedule go on with its next due time."""
        return await self._ask(calls.schedule_verb(identifier, "resume"))

    async def trigger_schedule(self, identifier: str) -> ScheduleRead:
        """Fires a schedule now; `last_fire` says what came of it. A watcher looks now instead."""
        return await self._ask(calls.schedule_verb(identifier, "trigger"))

    async def remove_schedule(self, identifier: str) -> None:
        """Removes a schedule; what it submitted stays."""
        transport.content(await self._send(calls.delete_schedule(identifier)))

    def schedule_fires(self, identifier: str) -> AsyncIterator[ScheduleFireRead]:
        """What a schedule did, newest first."""
        return self._all(base.listing(f"/v1/schedules/{identifier}/fires", ScheduleFireRead, {}))

    def webhook_endpoints(self) -> AsyncIterator[WebhookEndpointRead]:
        """Endpoints that are told what happens, newest first."""
        return self._all(base.listing("/v1/webhook_endpoints", WebhookEndpointRead, {}))

    async def webhook_endpoint(self, identifier: str) -> WebhookEndpointRead:
        """One endpoint."""
        return await self._ask(base.get(identifier, WebhookEndpointRead))

    async def create_webhook_endpoint(
        self, channel: dict[str, Any], event_types: Sequence[str] = ("*",), description: str = ""
    ) -> WebhookEndpointSecret:
        """Adds an endpoint; the answer alone shows its secret.

        Args:
            channel: `{"kind": "webhook", "url": ...}` or `{"kind": "email", "to": ...}`.
            event_types: `job.failed`, every event of a family by `job.*`, or all by `*`.
        """
        return await self._ask(calls.create_endpoint(channel, event_types, description))

    async def change_webhook_endpoint(self, identifier: str, **changes: Any) -> WebhookEndpointRead:
        """Changes an endpoint: channel, event_types, description, is_enabled."""
        return await self._ask(calls.change_endpoint(identifier, changes))

    async def remove_webhook_endpoint(self, identifier: str) -> None:
        """Removes an endpoint and its log."""
        transport.content(await self._send(calls.delete_endpoint(identifier)))

    async def rotate_webhook_secret(self, identifier: str) -> WebhookEndpointSecret:
        """Makes a new secret, which the answer alone shows; for a day both sign."""
        return await self._ask(calls.rotate_secret(identifier))

    async def test_webhook_endpoint(self, identifier: str) -> WebhookDeliveryRead:
        """Sends a test to an endpoint; `webhook_delivery` then says what came of it."""
        return await self._ask(calls.test_endpoint(identifier))

    def webhook_deliveries(self, endpoint: str, **filters: Any) -> AsyncIterator[WebhookDeliveryRead]:
        """What an endpoint was told, newest first; filters: status, order."""
        return self._all(base.listing(f"/v1/webhook_endpoints/{endpoint}/deliveries", WebhookDeliveryRead, filters))

    async def webhook_delivery(self, identifier: str) -> WebhookDeliveryRead:
        """One delivery with every try."""
        return await self._ask(base.get(identifier, WebhookDeliveryRead))

    async def redeliver_webhook(self, identifier: str) -> WebhookDeliveryRead:
        """Sends a delivery once more, under the same `webhook-id`."""
        return await self._ask(calls.redeliver(identifier))
