"""What routes take from the application: database, settings, caller; and the check of parameters that all share.

These are coroutines because FastAPI sends plain functions through its thread pool, which costs more than they do.
"""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.audit import Trail, trail_of
from api.auth import Principal
from api.errors import ApiError, FieldError
from api.streaming import Hub
from store.database import Database
from store.settings import Settings


async def get_database(request: Request) -> Database:
    """The application's database, confined to the caller's project; whole on open routes, which have no caller.

    What a request changes through it leaves an entry in the audit log.
    """
    database: Database = request.app.state.database
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        return database
    return database.confined(principal.project_id, trail_of(request, principal))


async def get_settings(request: Request) -> Settings:
    """The application's settings."""
    settings: Settings = request.app.state.settings
    return settings


async def get_principal(request: Request) -> Principal:
    """Who makes the request; only on routes that are not open."""
    principal: Principal = request.state.principal
    return principal


async def get_trail(request: Request) -> Trail:
    """What will stand in the audit log; only on routes that change something and are not open."""
    trail = trail_of(request, request.state.principal)
    assert trail is not None
    return trail


async def get_hub(request: Request) -> Hub:
    """What wakes event streams."""
    hub: Hub = request.app.state.hub
    return hub


DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
PrincipalDep = Annotated[Principal, Depends(get_principal)]
TrailDep = Annotated[Trail, Depends(get_trail)]
HubDep = Annotated[Hub, Depends(get_hub)]


def _query_names(request: Request, route: APIRoute) -> frozenset[str]:
    """Names of the query parameters that a route reads, found out once per route of the application."""
    known: dict[int, frozenset[str]] = request.app.state.query_names
    names = known.get(id(route))
    if names is None:
        names = known[id(route)] = frozenset(_names(route.dependant))
    return names


def _names(dependant: Dependant) -> Iterator[str]:
    for parameter in dependant.query_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _names(dependency)


async def known_parameters(request: Request) -> None:
    """Refuses a query parameter that the route does not have, one given twice, and text that no database stores."""
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    names = _query_names(request, route)
    seen = set()
    for name, value in request.query_params.multi_items():
        place = f"/query/{name[:64]}"
        if name not in names:
            raise _parameter(place, "unknown_parameter", "there is no such parameter")
        if name in seen:
            raise _parameter(place, "repeated_parameter", "the parameter is given twice; separate values by commas")
        if any(character < " " or "\ud800" <= character <= "\udfff" for character in value):
            raise _parameter(place, "control_character", "the value holds a control character")
        seen.add(name)


def _parameter(pointer: str, code: str, message: str) -> ApiError:
    return ApiError(422, "invalid_parameter", message, [FieldError(pointer=pointer, code=code, message=message)])
