"""Projects: what belongs together and is kept from others; and the column by which a row belongs to one."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Float, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText

DEFAULT_PROJECT_ID = UUID("00000000-0000-7000-8000-000000000001")
"""The project that every installation has, made by the migration; sorts before all others."""
PROJECT_OPTION = "lco_project"
"""Name under which a session, and its connection, know the project that they are confined to."""


class Project(Base):
    """A name under which keys share experiments, jobs and data, and what they may use together."""

    __tablename__ = "projects"

    id: Mapped[PrimaryId]
    name: Mapped[str] = mapped_column(String(64), unique=True)
    max_gpu_slots: Mapped[int | None] = mapped_column()
    """GPUs that its live runs may hold at once; null: no bound, as for every quota."""
    max_running_runs: Mapped[int | None] = mapped_column()
    """Live runs at once."""
    max_storage_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of checkpoints and data sets together."""
    max_judge_spend: Mapped[float | None] = mapped_column(Float)
    """USD that judges may cost in a calendar month (UTC)."""
    created_at: Mapped[Created]
    archived_at: Mapped[datetime | None] = mapped_column()
    """Since when nothing new may be submitted; null while it is in use."""


def _current_project(context: Any) -> UUID:
    """The project that the connection is confined to; the default one for workers and everything else."""
    project_id: UUID = context.execution_options.get(PROJECT_OPTION, DEFAULT_PROJECT_ID)
    return project_id


class InProject:
    """A row of a project. A confined session (`store.confinement`) sees those of its project alone, and adds to it."""

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"), default=_current_project)


class Spending(InProject, Base):
    """What the endpoints that a run asks, judges above all, cost in one month. Stays when the run is deleted."""

    __tablename__ = "spendings"
    __table_args__ = (Index(None, "project_id", "month"),)

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    """`2026-11`, in UTC."""
    usd: Mapped[float] = mapped_column(Float)


class AuditEntry(InProject, Base):
    """One change that somebody made over HTTP, written in the transaction of the change. Never changed or removed."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[PrimaryId]
    api_key_id: Mapped[UUID] = mapped_column()
    """Whose key it was, also behind a browser session."""
    key_name: Mapped[ShortText]
    """The key's name then."""
    via: Mapped[ShortText]
    """`bearer` or `cookie`."""
    action: Mapped[ShortText]
    """The operation of the API: `jobs.cancel`."""
    object_id: Mapped[str | None] = mapped_column(String(128))
    """What it was done to, as the wire names it."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    request_id: Mapped[ShortText]
    created_at: Mapped[Created]
