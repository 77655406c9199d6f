"""Signals: numbers that one process leaves for others to read."""

from datetime import datetime

from sqlalchemy import Float, String
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Signal(Base):
    """A number of the whole installation, such as the time of the last round of repairs."""

    __tablename__ = "signals"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    updated_at: Mapped[datetime]
