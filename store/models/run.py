"""Runs (one seed of a job: the unit of dispatch), their dependencies and their attempts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Float, ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject
from store.states import Desired, RunState

IS_LIVE = "state IN ('leased', 'running', 'stopping')"
"""A worker holds it. In a query word for word as here, or SQLite does not see that the index of live runs serves it."""


def _members(column: str, values: type[RunState] | type[Desired]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Run(InProject, Base):
    """One seed of a job. `attempt` is the fencing token: every write of a worker names it."""

    __tablename__ = "runs"
    __table_args__ = (
        UniqueConstraint("job_id", "seed"),
        CheckConstraint(_members("state", RunState), name="state"),
        CheckConstraint(_members("desired", Desired), name="desired"),
        Index(
            "ix_runs_claim",
            "project_id",
            "queue",
            text("priority DESC"),
            "available_at",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_runs_live",
            "project_id",
            "num_gpus",
            sqlite_where=text(IS_LIVE),
            postgresql_where=text(IS_LIVE),
        ),
        Index(
            "ix_runs_wait",
            "available_at",
            sqlite_where=text("state = 'retry_wait'"),
            postgresql_where=text("state = 'retry_wait'"),
        ),
        Index(None, "project_id", "id"),
    )

    id: Mapped[PrimaryId]
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"))
    kind: Mapped[ShortText]
    seed: Mapped[int] = mapped_column(BigInteger)
    queue: Mapped[ShortText]
    """`lco.cpu` or `lco.gpu`: which doorbell is rung."""
    priority: Mapped[int] = mapped_column(default=0)
    num_gpus: Mapped[int] = mapped_column(default=0)
    labels: Mapped[list[Any]] = mapped_column(default=list)
    """Labels that the worker must offer."""
    state: Mapped[ShortText] = mapped_column(default=RunState.QUEUED)
    desired: Mapped[ShortText] = mapped_column(default=Desired.RUN)
    status_reason: Mapped[str] = mapped_column(default="")
    """Why the run is in its state, for a person."""
    attempt: Mapped[int] = mapped_column(default=0)
    infra_failures: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[UUID | None] = mapped_column()
    hb_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    """Heartbeat counter: a reaper judges silence by it and by its own monotonic clock, never by wall clocks."""
    hb_at: Mapped[datetime | None] = mapped_column()
    progress_step: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)
    progress_message: Mapped[str] = mapped_column(default="")
    progress_at: Mapped[datetime | None] = mapped_column()
    available_at: Mapped[Created]
    """Not claimed before; moved into the future by a back-off."""
    hint_at: Mapped[datetime | None] = mapped_column()
    """When the doorbell was last rung for it."""
    blocked_on: Mapped[int] = mapped_column(default=0)
    """Unfinished dependencies."""
    latest_metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    error_code: Mapped[str] = mapped_column(default="")
    error_message: Mapped[str] = mapped_column(default="")
    output_attempt: Mapped[int] = mapped_column(default=0)
    """The attempt whose directory is published; 0 while none is. Of the reused run, where there is one."""
    spending_cap: Mapped[float | None] = mapped_column(Float)
    """USD that the endpoints which it asks may cost at most; null where one has no cap, or it asks none."""
    content_hash: Mapped[str | None] = mapped_column(String(64), index=True)
    """Equal for runs that do the same thing; null where an input has none."""
    reused_run_id: Mapped[UUID | None] = mapped_column()
    """The run whose output this one took over instead of running."""
    stop_reason: Mapped[str] = mapped_column(default="", server_default="")
    """The budget that it went over: it ends at its next checkpoint, as failed. Empty where it is within all."""
    pause_at_step: Mapped[int | None] = mapped_column()
    """The step at which it pauses by itself, as a trial of a search; null where it runs through."""
    is_held: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it paused there, and goes on when the search says so, not a person."""
    is_passed_over: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it was cancelled because its search went on without it, or because it needs such a run: its experiment
    is no worse for it."""
    traceparent: Mapped[str | None] = mapped_column(String(64))
    """W3C trace context of the request that submitted it; null where there was none."""
    purged: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """What was deleted of its records by age, and when: `logs`, `metrics`, `completions`."""
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[Created]
    queued_at: Mapped[datetime | None] = mapped_column()
    started_at: Mapped[datetime | None] = mapped_column()
    finished_at: Mapped[datetime | None] = mapped_column()


class RunDependency(Base):
    """`run_id` waits for `needs_id`: the same seed of another job."""

    __tablename__ = "run_dependencies"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    needs_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True, index=True)


class Attempt(Base):
    """One try at a run."""

    __tablename__ = "attempts"
    __table_args__ = (
        Index(
            "uq_attempts_open",
            "run_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    n: Mapped[int] = mapped_column(primary_key=True)
    worker_id: Mapped[UUID] = mapped_column()
    dispatcher: Mapped[ShortText] = mapped_column(default="local")
    """`local` or `celery`: what woke the supervisor."""
    software: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Versions of Python and of the packages that computed, and `program`: the hash of the platform's own source."""
    host: Mapped[ShortText] = mapped_column(default="")
    pid: Mapped[int | None] = mapped_column()
    gpus: Mapped[list[Any]] = mapped_column(default=list)
    outcome: Mapped[ShortText | None] = mapped_column()
    exit_code: Mapped[int | None] = mapped_column()
    error_message: Mapped[str] = mapped_column(default="")
    resumed_from_step: Mapped[int | None] = mapped_column()
    last_step: Mapped[int] = mapped_column(default=0)
    """Furthest step reported until it ended: tells a failure after progress from one that repeats itself."""
    waited_seconds: Mapped[float | None] = mapped_column(Float)
    """From when the run could be claimed to the claim; null for attempts of before it was kept."""
    started_at: Mapped[Created]
    ended_at: Mapped[datetime | None] = mapped_column()
