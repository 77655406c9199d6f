"""Mirrors: how far a run's metrics have been copied to a tracker."""

from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Mirror(Base):
    """One run at one tracker. Written after the tracker has the points: a crash in between repeats them there."""

    __tablename__ = "mirrors"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    tracker: Mapped[str] = mapped_column(String(300), primary_key=True)
    """As it stands in `LCO_TRACKERS`."""
    step: Mapped[int] = mapped_column(BigInteger, default=-1)
    """Last step whose metrics the tracker has."""
    external_id: Mapped[str] = mapped_column(String(128), default="")
    """What the tracker calls the run, where it has ids of its own."""
    is_done: Mapped[bool] = mapped_column(default=False)
    """The run has ended, and the tracker has everything."""
    error: Mapped[str] = mapped_column(default="")
    """Why the last try failed; empty after one that did not."""
