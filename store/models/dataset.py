"""Data sets: rows that were uploaded, kept under the hash of their content."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, PrimaryKeyConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base, Created, PrimaryId, ShortText
from store.models.project import InProject


class Dataset(InProject, Base):
    """One version of a named data set; never changed."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "name", "version"), Index(None, "project_id", "id"))

    id: Mapped[PrimaryId]
    name: Mapped[ShortText]
    version: Mapped[int]
    """1, 2, ... for each name of a project."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the rows as they are kept: JSON Lines."""
    format: Mapped[ShortText]
    """What was uploaded: `jsonl`, `csv` or `parquet`."""
    path: Mapped[str]
    """Relative to the data root."""
    num_rows: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the rows as they are kept."""
    columns: Mapped[list[Any]]
    """Names of the fields, in the order in which rows first have them."""
    origin: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Where the rows come from: `{"kind": "upload" | "split" | "run", ...}`; empty before this was kept."""
    created_at: Mapped[Created]


class Alias(InProject, Base):
    """A project's name for one of its checkpoints, such as `champion`."""

    __tablename__ = "aliases"
    __table_args__ = (PrimaryKeyConstraint("project_id", "name"),)

    name: Mapped[str] = mapped_column(String(64))
    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id"), index=True)
    updated_at: Mapped[Created]
