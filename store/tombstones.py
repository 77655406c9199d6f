"""What was deleted: looked up where an id leads nowhere, so that a person learns that there was something, and why."""

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.orm import Session

from store.database import database_time
from store.errors import Gone, NotFound
from store.ids import encode_id
from store.models.registry import Tombstone

PREFIXES = {"job": "job", "run": "run", "experiment": "exp", "checkpoint": "ckpt", "model": "mdl"}
"""Kind of object -> prefix of its ids."""


def absent(session: Session, what: str, identifier: UUID) -> NotFound:
    """The error of an id without a row: `Gone` where there was one, else `NotFound`."""
    shown = encode_id(PREFIXES[what], identifier)
    grave = session.get(Tombstone, identifier)
    if grave is None or grave.object != what:
        return NotFound(what, shown)
    return Gone(what, shown, grave.reason, grave.deleted_at)


def bury(session: Session, what: str, rows: Iterable[tuple[UUID, str, int]], reason: str) -> None:
    """Notes what is deleted in this transaction.

    Args:
        rows: id, name and size in bytes of each.
    """
    moment = database_time(session)
    graves = [
        {"id": row[0], "object": what, "name": row[1], "size_bytes": row[2], "reason": reason, "deleted_at": moment}
        for row in rows
    ]
    if graves:
        session.execute(insert(Tombstone), graves)
