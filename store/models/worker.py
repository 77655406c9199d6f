"""Workers: who offers slots."""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText


class Worker(Base):
    """A supervisor process and what it offers."""

    __tablename__ = "workers"

    id: Mapped[PrimaryId]
    host: Mapped[ShortText]
    pid: Mapped[int]
    dispatcher: Mapped[ShortText]
    """`local` or `celery`."""
    queues: Mapped[list[Any]]
    labels: Mapped[list[Any]] = mapped_column(default=list)
    slots: Mapped[int]
    gpus: Mapped[list[Any]] = mapped_column(default=list)
    """GPU indices it hands out to runs."""
    is_draining: Mapped[bool] = mapped_column(default=False)
    started_at: Mapped[Created]
    last_seen_at: Mapped[datetime]
