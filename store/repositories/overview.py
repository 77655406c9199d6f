"""What goes on: ends of the last day, and the attempts that are open."""

from collections.abc import Collection, Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.models.run import Attempt, Run


class Ends:
    """Queries of runs by their end."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def newest(self, states: Collection[str], since: datetime, limit: int) -> list[Run]:
        """Runs that came into one of some final states since a moment, the last one first."""
        query = select(Run).where(Run.finished_at >= since, Run.state.in_(states))
        return list(self._session.scalars(query.order_by(Run.finished_at.desc(), Run.id.desc()).limit(limit)))

    def counts(self, since: datetime) -> dict[str, int]:
        """Number of runs that ended since a moment, by state."""
        query = select(Run.state, func.count()).where(Run.finished_at >= since).group_by(Run.state)
        rows = self._session.execute(query).all()
        return {state: count for state, count in rows}  # noqa: C416  # a row is not typed as a pair


def open_attempts(session: Session, run_ids: Iterable[UUID]) -> dict[UUID, Attempt]:
    """The attempt that each of some runs is in now."""
    query = select(Attempt).where(Attempt.run_id.in_(list(run_ids)), Attempt.ended_at.is_(None))
    return {attempt.run_id: attempt for attempt in session.scalars(query)}
