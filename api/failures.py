"""Which errors an operation can give: what follows from how its route reads a request, and what it declares itself."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.auth import policy_of
from api.bodies import TOML, Body, no_body
from api.dependencies import get_settings
from api.idempotency import get_once
from api.uploads import get_upload

STATUSES = {
    "bad_request": 400,
    "invalid_content_length": 400,
    "invalid_host": 400,
    "json_depth": 400,
    "json_duplicate_key": 400,
    "json_encoding": 400,
    "json_not_finite": 400,
    "json_surrogate": 400,
    "json_syntax": 400,
    "toml_encoding": 400,
    "toml_syntax": 400,
    "toml_value": 400,
    "unauthenticated": 401,
    "cross_origin": 403,
    "insufficient_scope": 403,
    "not_found": 404,
    "archived": 409,
    "busy_name": 409,
    "damaged": 409,
    "disabled": 409,
    "held": 409,
    "in_flight": 409,
    "invalid_state": 409,
    "name_taken": 409,
    "no_secret": 409,
    "other_kind": 409,
    "suspended": 409,
    "taken": 409,
    "too_many": 409,
    "gone": 410,
    "stale": 412,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "control_character": 422,
    "idempotency_key_reused": 422,
    "integer_out_of_range": 422,
    "invalid": 422,
    "invalid_body": 422,
    "invalid_parameter": 422,
    "invalid_rows": 422,
    "unexpected_body": 422,
    "if_match_required": 428,
    "internal_error": 500,
    "database_unavailable": 503,
    "not_migrated": 503,
    "object_store_unavailable": 503,
    "overloaded": 503,
    "disk_full": 507,
}
"""Code -> its status, of every code that a described operation can give."""
_EVERYWHERE = (
    "invalid_content_length",
    "invalid_host",
    "body_too_large",
    "invalid_parameter",
    "internal_error",
    "database_unavailable",
    "overloaded",
)
_OF_DELETED = re.compile(r"{(job|run|exp|ckpt|mdl|other)_id}")
"""Path parameters of objects that leave word when they are deleted."""
_JSON_CODES = tuple(code for code in STATUSES if code.startswith("json_"))
_TOML_CODES = tuple(code for code in STATUSES if code.startswith("toml_"))
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def may_fail(*codes: str) -> Callable[[_Endpoint], _Endpoint]:
    """Declares codes that a route gives beside those that follow from what it reads."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        endpoint.lco_failures = codes  # type: ignore[attr-defined]
        return endpoint

    return declare


def failures(route: APIRoute) -> dict[int, list[str]]:
    """Status -> codes of the errors that a route can give, both sorted."""
    found: dict[int, list[str]] = defaultdict(list)
    for code in sorted(set(_codes(route))):
        found[STATUSES[code]].append(code)
    return dict(sorted(found.items()))


def _codes(route: APIRoute) -> Iterator[str]:
    yield from _EVERYWHERE
    yield from getattr(route.endpoint, "lco_failures", ())
    if policy_of(route) != "open":
        yield from ("unauthenticated", "insufficient_scope")
        if not (route.methods or set()) <= {"GET", "HEAD"}:
            yield "cross_origin"
    if "{" in route.path:
        yield "not_found"
        if _OF_DELETED.search(route.path):
            yield "gone"
    if any(dependency.call is get_settings for dependency in route.dependant.dependencies):
        yield "object_store_unavailable"  # who takes the settings finds artifacts by them
        if "POST" in (route.methods or ()):
            yield "disk_full"
    for call in _calls(route.dependant):
        if isinstance(call, Body):
            yield from (
                *_JSON_CODES,
                *(_TOML_CODES if TOML in call.media_types else ()),
                *("unsupported_media_type", "invalid_body", "control_character", "integer_out_of_range"),
            )
        elif call is no_body:
            yield "unexpected_body"
        elif call is get_once:
            yield "idempotency_key_reused"
        elif call is get_upload:
            yield "disk_full"
            yield from ("idempotency_key_reused", "unsupported_media_type")


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)
