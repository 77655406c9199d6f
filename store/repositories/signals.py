"""Signals: numbers that one process leaves for others to read."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.database import database_time
from store.models.notification import Delivery
from store.models.signal import Signal
from store.upserts import insert_into

RECONCILED = "reconciler_last_success"
"""Unix time of the last round of repairs that succeeded."""
FENCED = "fenced_writes"
"""Writes that the guard refused: the attempt was another worker's by then."""


class Signals:
    """Queries of signals."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def all(self) -> dict[str, float]:
        """Every signal by name."""
        return {row.name: row.value for row in self._session.execute(select(Signal.name, Signal.value))}

    def note_success(self) -> None:
        """Notes that a round of repairs succeeded now."""
        moment = database_time(self._session)
        self._put(RECONCILED, moment.timestamp(), moment.timestamp())

    def count_fenced(self) -> None:
        """Counts one refused write."""
        self._put(FENCED, 1.0, Signal.value + 1.0)

    def _put(self, name: str, first: float, later: Any) -> None:
        """Makes a signal, or changes it in one statement: no two processes lose each other's."""
        moment = database_time(self._session)
        statement = insert_into(self._session, Signal).values(name=name, value=first, updated_at=moment)
        self._session.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_={"value": later, "updated_at": moment})
        )

    def num_pending_deliveries(self) -> int:
        """Notifications on their way to an endpoint that has not taken them yet."""
        query = select(func.count()).select_from(Delivery).where(Delivery.status == "pending")
        return self._session.execute(query).scalar_one()
