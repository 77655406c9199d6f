"""Experiments and jobs: what was submitted."""

from typing import Any
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class Experiment(InProject, Base):
    """One document that named several jobs."""

    __tablename__ = "experiments"
    __table_args__ = (Index(None, "project_id", "id"),)

    id: Mapped[PrimaryId]
    name: Mapped[ShortText]
    description: Mapped[str] = mapped_column(default="")
    document: Mapped[dict[str, Any]]
    """What was submitted: an `ExperimentSpec`, or a matrix that expands to one."""
    cloned_from: Mapped[UUID | None] = mapped_column()
    """The experiment that this one is a changed copy of."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The submitter's `metadata`."""
    budget: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """A `Budget` that all its runs share; null for none."""
    created_at: Mapped[Created]


class Job(InProject, Base):
    """One spec over a list of seeds."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("experiment_id", "name"),
        Index(None, "status", "id"),
        Index(None, "experiment_id", "id"),
        Index(None, "project_id", "id"),
    )

    id: Mapped[PrimaryId]
    experiment_id: Mapped[UUID | None] = mapped_column(ForeignKey("experiments.id"))
    name: Mapped[ShortText]
    kind: Mapped[ShortText]
    method: Mapped[ShortText]
    """The name under which its results are tabled."""
    spec: Mapped[dict[str, Any]]
    """The `JobSpec` as submitted."""
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The submitter's `metadata`."""
    budget: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """A `Budget` of each of its runs; null for none."""
    status: Mapped[ShortText] = mapped_column(default="queued")
    """Of the runs' states, in the transaction that changes one: queued, running, paused, or a terminal state."""
    event_seq: Mapped[int] = mapped_column(default=0)
    """Last sequence number of the job's events; taken by UPDATE ... RETURNING, so that events are gapless."""
    version: Mapped[int] = mapped_column(default=1)
    """Grows with every visible change: the ETag."""
    created_at: Mapped[Created]
