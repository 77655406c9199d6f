"""Workers: registered when they start, seen when they beat."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from store.database import database_time
from store.errors import NotFound
from store.ids import encode_id, new_id
from store.models.worker import Worker
from store.repositories.paging import Order, Page, keyset_page
from store.text import clean_text


class Workers:
    """Queries of workers."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def register(
        self,
        *,
        host: str,
        pid: int,
        dispatcher: str,
        queues: Sequence[str],
        labels: Sequence[str],
        slots: int,
        gpus: Sequence[int],
        worker_id: UUID | None = None,
    ) -> UUID:
        """Adds a worker that has just started; gives its id."""
        moment = database_time(self._session)
        identifier = worker_id or new_id()
        self._session.execute(
            insert(Worker),
            {
                "id": identifier,
                "host": clean_text(host, 128),
                "pid": pid,
                "dispatcher": dispatcher,
                "queues": list(queues),
                "labels": list(labels),
                "slots": slots,
                "gpus": list(gpus),
                "started_at": moment,
                "last_seen_at": moment,
            },
        )
        return identifier

    def seen(self, worker_id: UUID, *, is_draining: bool = False) -> bool:
        """Notes that a worker lives; False where it is not registered (any more)."""
        beat = (
            update(Worker)
            .where(Worker.id == worker_id)
            .values(last_seen_at=database_time(self._session), is_draining=is_draining)
            .returning(Worker.id)
        )
        return self._session.execute(beat).scalar_one_or_none() is not None

    def remove(self, worker_id: UUID) -> None:
        """Forgets a worker that has stopped."""
        self._session.execute(delete(Worker).where(Worker.id == worker_id))

    def remove_silent(self, seconds: float) -> None:
        """Forgets workers that were not seen for so long."""
        before = database_time(self._session) - timedelta(seconds=seconds)
        self._session.execute(delete(Worker).where(Worker.last_seen_at < before))

    def get(self, worker_id: UUID) -> Worker:
        """One worker.

        Raises:
            NotFound: there is none.
        """
        worker = self._session.get(Worker, worker_id)
        if worker is None:
            raise NotFound("worker", encode_id("wrk", worker_id))
        return worker

    def page(
        self, limit: int = 20, after: UUID | None = None, before: UUID | None = None, order: Order = "desc"
    ) -> Page[Worker]:
        """Workers by their start."""
        return keyset_page(
            self._session, select(Worker), Worker.id, limit=limit, after=after, before=before, order=order
        )

    def all(self) -> list[Worker]:
        """Every worker that is not forgotten."""
        return list(self._session.scalars(select(Worker)))
