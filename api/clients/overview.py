"""What goes on, at a glance."""

from api.calls import overview as calls
from api.clients.base import Asking, AsyncAsking
from api.overview_schemas import OverviewRead


class Overview(Asking):
    """What goes on, at a glance."""

    def overview(self) -> OverviewRead:
        """What runs, what failed and finished in the last day, what waits, and where there is room."""
        return self._ask(calls.overview())


class AsyncOverview(AsyncAsking):
    """The same, asynchronously."""

    async def overview(self) -> OverviewRead:
        """What runs, what failed and finished in the last day, what waits, and where there is room."""
        return await self._ask(calls.overview())
