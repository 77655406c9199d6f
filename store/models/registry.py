"""The registry's own tables: registered models, what was deleted, files still to be removed, and hourly chores."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class Model(InProject, Base):
    """A model that came from elsewhere, under the name that jobs give as `model:NAME`; its weights are a checkpoint."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "name"), Index(None, "project_id", "id"))

    id: Mapped[PrimaryId]
    name: Mapped[str] = mapped_column(String(128))
    origin: Mapped[ShortText]
    """`hub` or `local` (a directory below the models root)."""
    hub_id: Mapped[str] = mapped_column(String(256), default="")
    """`OWNER/NAME` on the hub; empty for a local one."""
    revision: Mapped[str] = mapped_column(String(64), default="")
    """The pinned commit; empty for a local one."""
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The job that fetches it; null for a local one."""
    files: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """SHA-256 and size of each file of a local one; a fetched one has its run's manifest."""
    created_at: Mapped[Created]


class Tombstone(InProject, Base):
    """Something that was deleted: what there was, and why it is gone."""

    __tablename__ = "tombstones"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    """That of the object."""
    object: Mapped[ShortText]
    """`job`, `run`, `experiment`, `checkpoint` or `model`."""
    name: Mapped[ShortText] = mapped_column(default="")
    reason: Mapped[str]
    """For a person."""
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    deleted_at: Mapped[Created]


class Removal(Base):
    """A directory or file below the artifact root that no row needs any more: written in the transaction that
    deletes the rows, carried out after it, by whoever comes first.
    """

    __tablename__ = "removals"
    __table_args__ = (
        Index(
            "ix_removals_open",
            "id",
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[PrimaryId]
    path: Mapped[str]
    """Relative to the artifact root."""
    reason: Mapped[str]
    created_at: Mapped[Created]
    removed_at: Mapped[datetime | None] = mapped_column()
    freed_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """What the files took on the disk when they were removed; 0 where they were gone already."""


class Chore(Base):
    """Something done now and then by whichever process comes first: when it was last begun, and what it found."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[datetime]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
