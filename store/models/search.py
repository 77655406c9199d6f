"""Trials of a search: the jobs that compete, and how far each has come."""

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, ShortText


class SearchTrial(Base):
    """A job with one choice of the searched values."""

    __tablename__ = "search_trials"
    __table_args__ = (
        Index(None, "experiment_id", "position"),
        Index(
            "ix_search_trials_running",
            "experiment_id",
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )

    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    experiment_id: Mapped[UUID] = mapped_column(ForeignKey("experiments.id"))
    name: Mapped[ShortText]
    """The value of the axis `trial`: `t07`."""
    arm: Mapped[ShortText]
    """Whom it competes with: the value of `equal_budget_over`; empty where all compete."""
    position: Mapped[int]
    """Order of the trials, which decides between equal values."""
    parameters: Mapped[dict[str, Any]]
    """Searched name -> value."""
    steps: Mapped[list[Any]]
    """Optimizer steps at the end of each rung; the last is the job's own end."""
    rung: Mapped[int] = mapped_column(default=0)
    """The rung that it is in, from 0."""
    state: Mapped[ShortText] = mapped_column(default="running")
    """`running`, `stopped` by the search, or `finished`."""
    reason: Mapped[str] = mapped_column(default="")
    """Why it was stopped, for a person."""
    values: Mapped[list[Any]] = mapped_column(default=list)
    """The metric's mean over seeds at the end of each rung that it came through; null where a seed has none."""
