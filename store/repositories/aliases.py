"""Names for checkpoints."""

from collections import defaultdict
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.database import database_time
from store.errors import Invalid, NotFound
from store.models.dataset import Alias
from store.repositories.paging import Order, Page, keyset_page
from store.repositories.records import Checkpoints


class Aliases:
    """Queries of names for checkpoints."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def get(self, name: str) -> Alias:
        """One name.

        Raises:
            NotFound: no checkpoint has it.
        """
        alias = self._session.get(Alias, (project_of(self._session), name))
        if alias is None:
            raise NotFound("alias", name[:64])
        return alias

    def page(
        self, limit: int = 20, after: str | None = None, before: str | None = None, order: Order = "asc"
    ) -> Page[Alias]:
        """Names in alphabetical order."""
        return keyset_page(
            self._session, select(Alias), Alias.name, limit=limit, after=after, before=before, order=order
        )

    def put(self, name: str, checkpoint_id: UUID) -> tuple[Alias, bool]:
        """Gives a checkpoint a name, which another one loses; and whether the name is new.

        Raises:
            NotFound: there is no such checkpoint.
            Invalid: it is a resumable state, which no job takes as an input.
        """
        if Checkpoints(self._session).get(checkpoint_id).kind != "model":
            raise Invalid("/checkpoint", "this is a resumable state, not a published model")
        moment = database_time(self._session)
        key = (project_of(self._session), name)
        alias = self._session.get(Alias, key)
        if alias is None:
            alias = Alias(project_id=key[0], name=name, checkpoint_id=checkpoint_id, updated_at=moment)
            try:
                with self._session.begin_nested():
                    self._session.add(alias)
                return alias, True
            except IntegrityError:  # somebody gave the name at the same moment: this one comes later
                alias = self.get(name)
        if alias.checkpoint_id != checkpoint_id:
            alias.checkpoint_id, alias.updated_at = checkpoint_id, moment
            self._session.flush()
        return alias, False

    def remove(self, name: str) -> None:
        """Takes a name away; the checkpoint stays.

        Raises:
            NotFound: no checkpoint has it.
        """
        self._session.delete(self.get(name))
        self._session.flush()

    def of_checkpoints(self, checkpoint_ids: Iterable[UUID]) -> dict[UUID, list[str]]:
        """The names of some checkpoints; those without are left out."""
        names: dict[UUID, list[str]] = defaultdict(list)
        query = select(Alias).where(Alias.checkpoint_id.in_(list(checkpoint_ids))).order_by(Alias.name)
        for alias in self._session.scalars(query):
            names[alias.checkpoint_id].append(alias.name)
        return dict(names)
