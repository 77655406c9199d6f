"""Suites, their versions, the evaluations that they asked for, and verdicts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Float, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject

OPEN = ("pending", "running")
"""States of a verdict that is not decided yet."""


class Suite(InProject, Base):
    """Benchmarks, a baseline and gates under a name; what is asked stands in its versions."""

    __tablename__ = "suites"
    __table_args__ = (UniqueConstraint("project_id", "name"), Index(None, "project_id", "id"))

    id: Mapped[PrimaryId]
    name: Mapped[ShortText]
    description: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    """The current version."""
    triggers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """A `Triggers`."""
    watched_from: Mapped[Created]
    """Checkpoints older than this are new to no trigger."""
    scanned_to: Mapped[Created]
    """Up to when new checkpoints were looked at."""
    archived_at: Mapped[datetime | None] = mapped_column()
    """Since when nothing triggers it and no verdict may be asked for; null while it is in use."""
    created_at: Mapped[Created]
    updated_at: Mapped[Created]


class SuiteVersion(Base):
    """What one version of a suite measures and asks; never changed."""

    __tablename__ = "suite_versions"

    suite_id: Mapped[UUID] = mapped_column(ForeignKey("suites.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, ..."""
    plan: Mapped[dict[str, Any]]
    """A `Plan`, with a version behind each data set."""
    created_at: Mapped[Created]


class SuiteEvaluation(Base):
    """The evaluation of a checkpoint by a version of a suite: as a checkpoint to judge, as a baseline, or both."""

    __tablename__ = "suite_evaluations"
    __table_args__ = (
        ForeignKeyConstraint(["suite_id", "version"], ["suite_versions.suite_id", "suite_versions.version"]),
    )

    suite_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The newest job that evaluates it; null only within the transaction that makes it."""
    created_at: Mapped[Created]


class Verdict(InProject, Base):
    """What a version of a suite says of a checkpoint, once."""

    __tablename__ = "verdicts"
    __table_args__ = (
        UniqueConstraint("suite_id", "version", "checkpoint_id"),
        CheckConstraint("state IN ('pending', 'running', 'decided', 'error')", name="state"),
        Index(None, "project_id", "id"),
        Index(None, "suite_id", "id"),
        Index(None, "checkpoint_id"),
        Index(
            "ix_verdicts_open",
            "id",
            sqlite_where=text("state IN ('pending', 'running')"),
            postgresql_where=text("state IN ('pending', 'running')"),
        ),
        ForeignKeyConstraint(["suite_id", "version"], ["suite_versions.suite_id", "suite_versions.version"]),
    )

    id: Mapped[PrimaryId]
    suite_id: Mapped[UUID] = mapped_column(ForeignKey("suites.id"))
    version: Mapped[int]
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id"))
    baseline_id: Mapped[UUID | None] = mapped_column(ForeignKey("checkpoints.id"))
    """What the baseline meant when the verdict was asked for; null where it meant nothing."""
    cause: Mapped[str]
    """What asked for it, for a person: `manual`, `checkpoint filter`, `schedule sch_...`."""
    state: Mapped[ShortText] = mapped_column(default="pending")
    """`pending`, `running` (an evaluation has begun), `decided`, or `error`."""
    outcome: Mapped[str | None] = mapped_column()
    """`pass`, `regressed`, `improved` or `inconclusive`; null before it is decided."""
    reason: Mapped[str] = mapped_column(default="")
    """Why it could not be decided, or the gates that decided it."""
    figures: Mapped[list[Any]] = mapped_column(default=list)
    """One object a gate: what it asks, and what came of it."""
    level: Mapped[float] = mapped_column(Float)
    """Of the version, for readers of the figures."""
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The checkpoint's evaluation."""
    baseline_job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id"))
    """The baseline's."""
    promoted_alias: Mapped[str] = mapped_column(default="")
    """The alias that was given to the checkpoint; empty for none."""
    promotion_note: Mapped[str] = mapped_column(default="")
    """Why it was not, where the suite promotes and the outcome is good."""
    created_at: Mapped[Created]
    decided_at: Mapped[datetime | None] = mapped_column()
