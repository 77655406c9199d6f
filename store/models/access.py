"""Who may call: API keys, browser sessions, one-time login links; and the replies kept for idempotent retries."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class ApiKey(InProject, Base):
    """An API key `lco_sk_<id>_<secret>`; only the SHA-256 of the secret is stored. It reaches its project's rows."""

    __tablename__ = "api_keys"

    id: Mapped[PrimaryId]
    name: Mapped[ShortText]
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scope: Mapped[ShortText]
    """`read`, `write` (and read) or `admin` (and both)."""
    created_at: Mapped[Created]
    expires_at: Mapped[datetime | None] = mapped_column()
    revoked_at: Mapped[datetime | None] = mapped_column()
    last_used_at: Mapped[datetime | None] = mapped_column()


class Session(Base):
    """A browser's session: the cookie's SHA-256 and the key it stands for. `is_link` marks a one-time login link."""

    __tablename__ = "sessions"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    api_key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    is_link: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[Created]
    expires_at: Mapped[datetime]


class IdempotencyKey(Base):
    """The reply to a POST, kept so that a retry with the same key gets the same one."""

    __tablename__ = "idempotency_keys"

    api_key_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status_code: Mapped[int]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[Created]
