"""API keys and logins."""

from collections.abc import AsyncIterator, Iterator

from api import service_schemas
from api.calls import access as calls
from api.calls import base
from api.clients.base import Asking, AsyncAsking


class Access(Asking):
    """API keys and logins."""

    def login_link(self) -> str:
        """A link that opens one browser session, once."""
        return self.url + self._ask(calls.login_link()).path

    def api_keys(self) -> Iterator[service_schemas.ApiKeyRead]:
        """API keys, newest first."""
        return self._all(base.listing("/v1/api_keys", service_schemas.ApiKeyRead, {}))

    def create_key(
        self, name: str, scope: str, expires_in_days: int | None = None, project: str | None = None
    ) -> service_schemas.ApiKeyCreated:
        """A new API key with the scope `read`, `write` or `admin`, for the caller's project unless told."""
        return self._ask(calls.create_key(name, scope, expires_in_days, project))

    def revoke_key(self, identifier: str) -> service_schemas.ApiKeyRead:
        """Ends an API key, and the sessions that came from it."""
        return self._ask(calls.revoke_key(identifier))


class AsyncAccess(AsyncAsking):
    """The same, asynchronously."""

    async def login_link(self) -> str:
        """A link that opens one browser session, once."""
        return self.url + (await self._ask(calls.login_link())).path

    def api_keys(self) -> AsyncIterator[service_schemas.ApiKeyRead]:
        """API keys, newest first."""
        return self._all(base.listing("/v1/api_keys", service_schemas.ApiKeyRead, {}))

    async def create_key(
        self, name: str, scope: str, expires_in_days: int | None = None, project: str | None = None
    ) -> service_schemas.ApiKeyCreated:
        """A new API key with the scope `read`, `write` or `admin`, for the caller's project unless told."""
        return await self._ask(calls.create_key(name, scope, expires_in_days, project))

    async def revoke_key(self, identifier: str) -> service_schemas.ApiKeyRead:
        """Ends an API key, and the sessions that came from it."""
        return await self._ask(calls.revoke_key(identifier))
