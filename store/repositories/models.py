"""Registered models."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.registry import Model
from store.repositories.paging import Order, Page, keyset_page
from store.states import TERMINAL
from store.tombstones import absent


@dataclass(frozen=True, slots=True)
class ModelState:
    """How far a registered model is."""

    state: str
    """`fetching`, `ready` or `failed`."""
    checkpoint: Checkpoint | None
    """Its weights, once they are there."""


class Models:
    """Queries of registered models."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, model_id: UUID) -> Model:
        """One model.

        Raises:
            NotFound: there is none.
            Gone: it was removed.
        """
        model = self._session.get(Model, model_id)
        if model is None:
            raise absent(self._session, "model", model_id)
        return model

    def named(self, name: str) -> Model | None:
        """The model of a name in the session's project; None where none is registered under it."""
        is_named = (Model.project_id == project_of(self._session), Model.name == name)
        return self._session.scalar(select(Model).where(*is_named))

    def names(self, model_ids: Iterable[UUID]) -> dict[UUID, str]:
        """Names of models by their ids."""
        query = select(Model.id, Model.name).where(Model.id.in_(list(model_ids)))
        return dict(self._session.execute(query).all())

    def page(
        self,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
        *,
        name: str | None = None,
    ) -> Page[Model]:
        """Models that meet every filter given."""
        query = select(Model)
        if name is not None:
            query = query.where(Model.name == name)
        return keyset_page(self._session, query, Model.id, limit=limit, after=after, before=before, order=order)

    def states(self, models: Iterable[Model]) -> dict[UUID, ModelState]:
        """How far each of some models is."""
        rows = list(models)
        weights = select(Checkpoint).where(
            Checkpoint.model_id.in_([row.id for row in rows]), Checkpoint.deleted_at.is_(None)
        )
        checkpoints = {row.model_id: row for row in self._session.scalars(weights.order_by(Checkpoint.id))}
        jobs = select(Job.id, Job.status).where(Job.id.in_([row.job_id for row in rows if row.job_id is not None]))
        statuses = dict(self._session.execute(jobs).all())
        found = {}
        for row in rows:
            status = "failed" if row.job_id is None else statuses.get(row.job_id, "failed")
            state = "ready" if row.id in checkpoints else "failed" if status in TERMINAL else "fetching"
            found[row.id] = ModelState(state, checkpoints.get(row.id))
        return found
