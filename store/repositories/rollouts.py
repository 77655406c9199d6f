"""Rollouts that training runs keep."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.models.record import Rollout
from store.models.run import Run
from store.repositories.paging import Order, Page


class Rollouts:
    """Queries of the rollouts of a run, or of the run whose output it took over."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def iterations(self, run_id: UUID) -> list[int]:
        """The iterations of which some are kept, in their order."""
        query = select(Rollout.iteration).where(Rollout.run_id == self._owner(run_id)).distinct()
        return list(self._session.scalars(query.order_by(Rollout.iteration)))

    def page(
        self,
        run_id: UUID,
        limit: int = 100,
        after: tuple[int, int] | None = None,
        order: Order = "asc",
        *,
        iteration: int | None = None,
    ) -> Page[Rollout]:
        """Rollouts by iteration and position.

        Args:
            after: (iteration, position) of the last one seen.
        """
        query = select(Rollout).where(Rollout.run_id == self._owner(run_id))
        if iteration is not None:
            query = query.where(Rollout.iteration == iteration)
        if order == "asc":
            if after is not None:
                is_later = (Rollout.iteration == after[0]) & (Rollout.position > after[1])
                query = query.where((Rollout.iteration > after[0]) | is_later)
            query = query.order_by(Rollout.iteration, Rollout.position)
        else:
            if after is not None:
                is_earlier = (Rollout.iteration == after[0]) & (Rollout.position < after[1])
                query = query.where((Rollout.iteration < after[0]) | is_earlier)
            query = query.order_by(Rollout.iteration.desc(), Rollout.position.desc())
        found = list(self._session.scalars(query.limit(limit + 1)))
        return Page(found[:limit], len(found) > limit)

    def _owner(self, run_id: UUID) -> UUID:
        return self._session.scalar(select(Run.reused_run_id).where(Run.id == run_id)) or run_id
