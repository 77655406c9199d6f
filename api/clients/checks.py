"""Documents tried out before they are submitted."""

from typing import Any

from api.calls import checks as calls
from api.check_schemas import CheckRead
from api.clients.base import Asking, AsyncAsking


class Checks(Asking):
    """Documents tried out before they are submitted."""

    def check_experiment(self, spec: Any) -> CheckRead:
        """Checks an experiment as `submit_experiment` does and tells what it would make; submits nothing."""
        return self._ask(calls.check_experiment(spec))

    def check_clone(self, identifier: str, patch: dict[str, Any] | None = None) -> CheckRead:
        """The same for a changed copy, with what differs from the original."""
        return self._ask(calls.check_clone(identifier, patch or {}))


class AsyncChecks(AsyncAsking):
    """The same, asynchronously."""

    async def check_experiment(self, spec: Any) -> CheckRead:
        """Checks an experiment as `submit_experiment` does and tells what it would make; submits nothing."""
        return await self._ask(calls.check_experiment(spec))

    async def check_clone(self, identifier: str, patch: dict[str, Any] | None = None) -> CheckRead:
        """The same for a changed copy, with what differs from the original."""
        return await self._ask(calls.check_clone(identifier, patch or {}))
