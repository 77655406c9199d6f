"""Endpoints that are told what happens, and the log of what they were told."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.database import database_time
from store.deliveries import ROTATION, new_secret
from store.errors import Conflict, NotFound
from store.ids import encode_id
from store.models.notification import Delivery, DeliveryTry, Notification, WebhookEndpoint
from store.notifications import MAX_TRIES, deliver_to
from store.repositories.paging import Order, Page, keyset_page

_MAX_ENDPOINTS = 100


class WebhookEndpoints:
    """Queries of endpoints."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
        self, *, project_id: UUID, channel: dict[str, Any], event_types: list[str], description: str, is_enabled: bool
    ) -> WebhookEndpoint:
        """Adds an endpoint; a webhook's gets a secret.

        Raises:
            Conflict: the project has too many.
        """
        count = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
        if self._session.execute(count).scalar_one() >= _MAX_ENDPOINTS:
            raise Conflict("too_many", f"a project has at most {_MAX_ENDPOINTS} endpoints")
        moment = database_time(self._session)
        endpoint = WebhookEndpoint(
            project_id=project_id,
            channel=channel,
            event_types=event_types,
            description=description,
            is_enabled=is_enabled,
            secret=new_secret() if channel["kind"] == "webhook" else "",
            created_at=moment,
            updated_at=moment,
        )
        self._session.add(endpoint)
        self._session.flush()
        return endpoint

    def get(self, endpoint_id: UUID) -> WebhookEndpoint:
        """One endpoint.

        Raises:
            NotFound: there is none.
        """
        endpoint = self._session.scalar(select(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id))
        if endpoint is None:
            raise NotFound("webhook endpoint", encode_id("whk", endpoint_id))
        return endpoint

    def page(
        self, limit: int = 20, after: UUID | None = None, before: UUID | None = None, order: Order = "desc"
    ) -> Page[WebhookEndpoint]:
        """Endpoints by their creation."""
        query = select(WebhookEndpoint)
        return keyset_page(
            self._session, query, WebhookEndpoint.id, limit=limit, after=after, before=before, order=order
        )

    def change(self, endpoint_id: UUID, changes: Mapping[str, Any]) -> WebhookEndpoint:
        """Changes columns. One that is enabled again begins anew; a new kind of channel gets or loses its secret.

        Raises:
            NotFound: there is none.
        """
        endpoint = self.get(endpoint_id)
        for name, value in changes.items():
            setattr(endpoint, name, value)
        if changes.get("is_enabled"):
            endpoint.disabled_reason, endpoint.failing_since = "", None
        if "channel" in changes:
            is_webhook = endpoint.channel["kind"] == "webhook"
            if is_webhook != bool(endpoint.secret):
                raise Conflict("other_kind", "a webhook does not become a mail, nor a mail a webhook: make another one")
        endpoint.updated_at = database_time(self._session)
        self._session.flush()
        return endpoint

    def remove(self, endpoint_id: UUID) -> None:
        """Removes an endpoint and its deliveries.

        Raises:
            NotFound: there is none.
        """
        self.get(endpoint_id)
        self._session.execute(delete(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id))

    def rotate(self, endpoint_id: UUID) -> WebhookEndpoint:
        """Gives an endpoint a new secret; for a day the former one signs as well.

        Raises:
            NotFound: there is none.
            Conflict: mails are not signed.
        """
        endpoint = self.get(endpoint_id)
        if not endpoint.secret:
            raise Conflict("no_secret", "mails are not signed: there is no secret")
        moment = database_time(self._session)
        endpoint.previous_secret, endpoint.secret = endpoint.secret, new_secret()
        endpoint.previous_secret_until = moment + ROTATION
        endpoint.updated_at = moment
        self._session.flush()
        return endpoint

    def test(self, endpoint_id: UUID) -> Delivery:
        """Sends a test to an endpoint, whatever it wants to know.

        Raises:
            NotFound: there is none.
            Conflict: it is disabled.
        """
        endpoint = self.get(endpoint_id)
        _check_enabled(endpoint)
        shown = encode_id("whk", endpoint.id)
        data = {"message": "A test of this endpoint."}
        notification_id = deliver_to(
            self._session, [endpoint.id], "webhook_endpoint.test", shown, data, endpoint.project_id
        )
        return self._session.scalars(select(Delivery).where(Delivery.notification_id == notification_id)).one()


class Deliveries:
    """Queries of deliveries. Those of a foreign project's endpoints do not exist here."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, delivery_id: UUID) -> Delivery:
        """One delivery.

        Raises:
            NotFound: there is none.
        """
        query = (
            select(Delivery)
            .join(WebhookEndpoint, WebhookEndpoint.id == Delivery.endpoint_id)
            .where(Delivery.id == delivery_id)
        )
        delivery = self._session.scalar(query)
        if delivery is None:
            raise NotFound("delivery", encode_id("dlv", delivery_id))
        return delivery

    def page(
        self,
        endpoint_id: UUID,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        status: str | None = None,
    ) -> Page[Delivery]:
        """Deliveries to an endpoint.

        Raises:
            NotFound: there is no such endpoint.
        """
        WebhookEndpoints(self._session).get(endpoint_id)
        query = select(Delivery).where(Delivery.endpoint_id == endpoint_id)
        if status is not None:
            query = query.where(Delivery.status == status)
        return keyset_page(self._session, query, Delivery.id, limit=limit, after=after, before=before, order=order)

    def notifications(self, deliveries: Iterable[Delivery]) -> dict[UUID, Notification]:
        """What is told by some deliveries, by the notifications' ids."""
        wanted = {delivery.notification_id for delivery in deliveries}
        query = select(Notification).where(Notification.id.in_(wanted))
        return {row.id: row for row in self._session.scalars(query)}

    def tries(self, delivery_ids: Iterable[UUID]) -> dict[UUID, list[DeliveryTry]]:
        """The tries of some deliveries, in their order."""
        query = select(DeliveryTry).where(DeliveryTry.delivery_id.in_(list(delivery_ids)))
        found: dict[UUID, list[DeliveryTry]] = defaultdict(list)
        for row in self._session.scalars(query.order_by(DeliveryTry.delivery_id, DeliveryTry.n)):
            found[row.delivery_id].append(row)
        return found

    def redeliver(self, delivery_id: UUID) -> Delivery:
        """Sends a delivery again, with the same `webhook-id` and all tries anew; ends the waiting of one that waits.

        Raises:
            NotFound: there is none.
            Conflict: its endpoint is disabled, or it is being tried at this moment.
        """
        delivery = self.get(delivery_id)
        self._session.refresh(delivery, with_for_update=True)
        _check_enabled(WebhookEndpoints(self._session).get(delivery.endpoint_id))
        moment = database_time(self._session)
        last = self.tries([delivery.id]).get(delivery.id, [])
        if delivery.status == "pending" and last and last[-1].ended_at is None and delivery.available_at > moment:
            raise Conflict("in_flight", "it is being tried at this moment", delivery.status)
        delivery.status, delivery.tries_left, delivery.finished_at = "pending", MAX_TRIES, None
        delivery.available_at = moment
        self._session.flush()
        return delivery


def _check_enabled(endpoint: WebhookEndpoint) -> None:
    if not endpoint.is_enabled:
        raise Conflict("disabled", "the endpoint is disabled: enable it first", "disabled")
