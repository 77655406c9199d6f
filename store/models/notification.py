"""Alerts: what happened, who is to be told, and every try to tell them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class WebhookEndpoint(InProject, Base):
    """Somebody who is to be told: an address that takes webhooks, or an e-mail address."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[PrimaryId]
    description: Mapped[str] = mapped_column(String(500), default="")
    channel: Mapped[dict[str, Any]]
    """`{"kind": "webhook", "url": ...}` or `{"kind": "email", "to": [...]}`."""
    event_types: Mapped[list[Any]]
    """Patterns: `job.failed`, `job.*`, `*`."""
    secret: Mapped[str] = mapped_column(String(128), default="")
    """`whsec_...`, with which deliveries are signed, as it is; empty for e-mail."""
    previous_secret: Mapped[str] = mapped_column(String(128), default="")
    """Signs as well until `previous_secret_until`."""
    previous_secret_until: Mapped[datetime | None] = mapped_column()
    is_enabled: Mapped[bool] = mapped_column(default=True)
    disabled_reason: Mapped[str] = mapped_column(default="")
    """Why the platform gave it up; empty where a person did."""
    failing_since: Mapped[datetime | None] = mapped_column()
    """The first failed try since the last success; null while it works."""
    created_at: Mapped[Created]
    updated_at: Mapped[Created]


class Notification(InProject, Base):
    """Something that happened, written in the transaction in which it did: the outbox."""

    __tablename__ = "notifications"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[PrimaryId]
    """Shown as `ntf_...`: the `webhook-id`, the same in every try."""
    type: Mapped[ShortText]
    object_id: Mapped[ShortText]
    """The id, as it is shown, of what it is about."""
    data: Mapped[dict[str, Any]]
    created_at: Mapped[Created]


class Delivery(Base):
    """One notification on its way to one endpoint. `tries` is the token of whoever tries: a late one writes nothing."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("notification_id", "endpoint_id"),
        Index(None, "endpoint_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "available_at",
            sqlite_where=text("status = 'pending'"),
            postgresql_where=text("status = 'pending'"),
        ),
    )

    id: Mapped[PrimaryId]
    notification_id: Mapped[UUID] = mapped_column(ForeignKey("notifications.id"))
    endpoint_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    status: Mapped[ShortText] = mapped_column(default="pending")
    """`pending`, `delivered` or `failed`."""
    tries: Mapped[int] = mapped_column(default=0)
    """All tries so far, also those of before a redelivery."""
    tries_left: Mapped[int]
    """Failures that are still allowed."""
    available_at: Mapped[Created]
    """Not tried before; while a try goes on, when it counts as lost."""
    created_at: Mapped[Created]
    finished_at: Mapped[datetime | None] = mapped_column()


class DeliveryTry(Base):
    """One try of a delivery; without `ended_at` it still goes on, or its process was killed."""

    __tablename__ = "webhook_delivery_tries"

    delivery_id: Mapped[UUID] = mapped_column(ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    started_at: Mapped[Created]
    ended_at: Mapped[datetime | None] = mapped_column()
    response_code: Mapped[int | None] = mapped_column()
    """HTTP status or SMTP reply; null where none came."""
    response_body: Mapped[str] = mapped_column(default="")
    """The first characters of what was answered."""
    error: Mapped[str] = mapped_column(String(500), default="")
    """Why it failed; empty for a success."""
    duration_milliseconds: Mapped[int | None] = mapped_column(BigInteger)
