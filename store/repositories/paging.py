"""Keyset pages: the id itself is the cursor, and stays one after its row is deleted."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Row = TypeVar("Row")
Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows of a list."""

    rows: list[Row]
    has_more: bool
    """Whether more follow in the direction of paging."""


def keyset_page(
    session: Session,
    query: Select[Row],
    key: InstrumentedAttribute[Any],
    *,
    limit: int,
    after: Any = None,
    before: Any = None,
    order: Order = "desc",
) -> Page[Row]:
    """Rows in the order of `key`: those after `after`, or those just before `before`, in list order either way."""
    is_descending = order == "desc"
    if after is not None:
        query = query.where(key < after if is_descending else key > after)
    if before is not None:
        query = query.where(key > before if is_descending else key < before)
    is_backwards = before is not None and after is None
    rising = is_descending == is_backwards
    found = list(session.scalars(query.order_by(key.asc() if rising else key.desc()).limit(limit + 1)))
    rows = found[:limit]
    return Page(rows[::-1] if is_backwards else rows, len(found) > limit)
