"""An INSERT that meets a row of its key."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def insert_into(session: Session, table: Any) -> Any:
    """An INSERT that can say what happens on a conflict: the one of the session's dialect."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def upsert(
    session: Session, table: Any, key: list[str], changed: list[str], values: Mapping[str, Any] | None = None
) -> Any:
    """INSERT that overwrites `changed` of an existing row, or leaves it alone; both dialects have the same words."""
    statement = insert_into(session, table)
    if values is not None:
        statement = statement.values(**values)
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in changed}
    )
