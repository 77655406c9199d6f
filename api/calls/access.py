"""Calls about API keys and logins."""

from api import service_schemas
from api.calls.base import Ask
from api.transport import Call, body_of


def login_link() -> Ask[service_schemas.LoginLink]:
    """A link that opens one browser session."""
    return Ask(Call("POST", "/v1/login_links"), service_schemas.LoginLink)


def create_key(
    name: str, scope: str, expires_in_days: int | None, project: str | None
) -> Ask[service_schemas.ApiKeyCreated]:
    """A new API key."""
    body = {"name": name, "scope": scope, "expires_in_days": expires_in_days, "project": project}
    return Ask(Call("POST", "/v1/api_keys", content=body_of(body)), service_schemas.ApiKeyCreated)


def revoke_key(identifier: str) -> Ask[service_schemas.ApiKeyRead]:
    """The end of an API key."""
    return Ask(Call("POST", f"/v1/api_keys/{identifier}/revoke"), service_schemas.ApiKeyRead)
