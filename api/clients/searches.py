"""Searches."""

from api.calls import searches as calls
from api.clients.base import Asking, AsyncAsking
from api.search_schemas import SearchRead


class Searches(Asking):
    """Searches."""

    def search(self, experiment: str) -> SearchRead:
        """The trials of an experiment's search."""
        return self._ask(calls.search(experiment))


class AsyncSearches(AsyncAsking):
    """The same, asynchronously."""

    async def search(self, experiment: str) -> SearchRead:
        """The trials of an experiment's search."""
        return await self._ask(calls.search(experiment))
