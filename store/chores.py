"""Chores: what is done now and then, by one process of however many there are."""

from datetime import timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from store.database import database_time
from store.models.registry import Chore
from store.upserts import insert_into


def begin(session: Session, name: str, every_seconds: float) -> bool:
    """Whether the caller is to do a chore now: true for the first one to ask after its time has come."""
    moment = database_time(session)
    first = insert_into(session, Chore).values(name=name, started_at=moment, details={}).on_conflict_do_nothing()
    if session.execute(first.returning(Chore.name)).scalar_one_or_none() is not None:
        return True
    due = (
        update(Chore)
        .where(Chore.name == name, Chore.started_at <= moment - timedelta(seconds=every_seconds))
        .values(started_at=moment)
        .returning(Chore.name)
    )
    return session.execute(due).scalar_one_or_none() is not None


def note(session: Session, name: str, details: dict[str, Any]) -> dict[str, Any]:
    """Keeps what a chore found; what it had found before."""
    row = session.get(Chore, name, with_for_update=True)
    if row is None:
        session.add(Chore(name=name, started_at=database_time(session), details=details))
        session.flush()
        return {}
    before, row.details = row.details, details
    session.flush()
    return before
