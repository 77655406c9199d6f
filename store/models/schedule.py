"""Schedules: what is submitted when, and each time that it was."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.ids import new_id
from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class Schedule(InProject, Base):
    """Something that is done at certain times, or whenever something new appears."""

    __tablename__ = "schedules"
    __table_args__ = (
        Index(None, "project_id", "id"),
        Index(
            "ix_schedules_due",
            "next_due_at",
            sqlite_where=text("NOT is_suspended"),
            postgresql_where=text("NOT is_suspended"),
        ),
    )

    id: Mapped[PrimaryId]
    name: Mapped[ShortText]
    trigger: Mapped[dict[str, Any]]
    """A `store.schedule_specs.Trigger`."""
    action: Mapped[dict[str, Any]]
    """A `store.schedule_specs.Action`."""
    concurrency: Mapped[ShortText]
    """`forbid` or `allow`: what the last fire began may still go on."""
    is_suspended: Mapped[bool] = mapped_column(default=False)
    next_due_at: Mapped[datetime | None] = mapped_column()
    """When it is next looked at; null where it never is."""
    has_looked: Mapped[bool] = mapped_column(default=False)
    """Whether a watcher knows what was there before it."""
    last_looked_at: Mapped[datetime | None] = mapped_column()
    last_error: Mapped[str] = mapped_column(default="")
    """Why a watcher's last look failed; empty where it did not."""
    created_at: Mapped[Created]
    updated_at: Mapped[Created]


class ScheduleFire(Base):
    """One time that a schedule was due, or one thing that it found: its primary key lets it act once."""

    __tablename__ = "schedule_fires"
    __table_args__ = (UniqueConstraint("id"), Index(None, "schedule_id", "id"))

    schedule_id: Mapped[UUID] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    """The due time, or what a watcher found."""
    id: Mapped[UUID] = mapped_column(default=new_id)
    cause: Mapped[ShortText]
    """`due`, `found` or `manual`."""
    due_at: Mapped[datetime]
    fired_at: Mapped[datetime]
    outcome: Mapped[ShortText]
    """`submitted`, `failed`, `skipped`, `known` (there before the watcher) or `fetching` (it comes from a hub)."""
    objects: Mapped[list[Any]]
    """Ids, as they are shown, of what was submitted."""
    message: Mapped[str] = mapped_column(default="")
    """Why it failed or was skipped; what was found."""
