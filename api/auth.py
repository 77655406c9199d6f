"""Who may call what. Every route states a policy with `requires`; one without it stops the application from starting.

A key is `lco_sk_<id>_<secret>`: the id finds the row, the secret's SHA-256 is compared in constant time. A browser has
a session cookie instead, and then only same-origin pages may change anything.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as OrmSession
from starlette.concurrency import run_in_threadpool

from api.errors import ApiError, wants_page
from store.confinement import release
from store.database import Database
from store.ids import decode_id, encode_id, new_id
from store.models.access import ApiKey
from store.models.project import DEFAULT_PROJECT_ID
from store.repositories.keys import Keys

Scope = Literal["read", "write", "admin"]
Policy = Literal["open", "read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""Each includes those before it."""
KEY_PREFIX = "lco_sk"
SESSION_COOKIE = "lco_session"
_CACHE_SECONDS = 1.0
"""Age up to which a verified credential is believed without a look at the database: how long a revoked key may live."""
_TOUCH_SECONDS = 60.0
"""Least time between two writes of a key's `last_used_at`."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request."""

    key_id: UUID
    """The API key, also behind a session."""
    name: str
    """The key's name."""
    scope: Scope
    """What it may do."""
    via: Literal["bearer", "cookie"]
    """How it was presented."""
    project_id: UUID
    """The key's project: whose rows there are for this principal."""

    @property
    def is_operator(self) -> bool:
        """Whether it manages the whole installation: an admin key of the default project."""
        return self.scope == "admin" and self.project_id == DEFAULT_PROJECT_ID

    def may(self, scope: Scope) -> bool:
        """Whether the scope is included in this principal's."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


def widen(session: OrmSession, principal: Principal) -> None:
    """Lets an operator's session see all projects; everybody else's stays as it is."""
    if principal.is_operator:
        release(session)


def requires(policy: Policy) -> Callable[[_Endpoint], _Endpoint]:
    """Declares who may call a route; stands directly above the function."""

    def declare(endpoint: _Endpoint) -> _Endpoint:
        endpoint.lco_policy = policy  # type: ignore[attr-defined]
        return endpoint

    return declare


def policy_of(route: Any) -> Policy | None:
    """The declared policy of a route, if it has one."""
    return getattr(getattr(route, "endpoint", None), "lco_policy", None)


def check_policies(app: FastAPI, open_mounts: frozenset[str]) -> None:
    """Refuses an application with a route that nobody decided about.

    Args:
        open_mounts: paths of mounted applications that may be reached without a key.

    Raises:
        RuntimeError: a route has no policy, or something else than a route or an expected mount is served.
    """
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            if policy_of(route) is None:
                raise RuntimeError(f"{context.path} ({route.name}) declares no policy: put @requires(...) above it")
        elif getattr(route, "path", None) not in open_mounts:
            raise RuntimeError(f"{route!r} is neither a route with a policy nor an expected mount")


def hash_secret(secret: str) -> str:
    """SHA-256 of a random secret; a slow hash would add nothing to 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(
    session: OrmSession, name: str, scope: Scope, expires_at: datetime | None = None, project_id: UUID | None = None
) -> tuple[ApiKey, str]:
    """A new key's row, and the key itself, which is never stored; of the session's project unless told."""
    secret = secrets.token_urlsafe(32)
    key_id = new_id()
    row = Keys(session).create(
        key_id=key_id,
        name=name,
        scope=scope,
        secret_sha256=hash_secret(secret),
        expires_at=expires_at,
        project_id=project_id,
    )
    return row, f"{encode_id(KEY_PREFIX, key_id)}_{secret}"


def split_key(text: str) -> tuple[UUID, str] | None:
    """The id and the secret of a presented key; None when it has another form."""
    start, _, rest = text.removeprefix(f"{KEY_PREFIX}_").partition("_")
    if not text.startswith(f"{KEY_PREFIX}_") or not rest or len(rest) > 128 or not rest.isascii():
        return None
    try:
        return decode_id("key", f"key_{start}"), rest
    except ValueError:
        return None


def verify_key(session: OrmSession, text: str) -> ApiKey | None:
    """The active key that was presented; None for anything else."""
    parts = split_key(text)
    if parts is None:
        return None
    key = Keys(session).valid(parts[0])
    expected = key.secret_sha256 if key is not None else "0" * 64
    is_equal = hmac.compare_digest(expected, hash_secret(parts[1]))
    return key if is_equal else None


class Gate:
    """Authenticates requests; believes a verified credential for a second, so that polling costs no query each time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, str], tuple[float, Principal]] = {}
        self._touched: dict[UUID, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def authenticate(self, request: Request) -> Principal | None:
        """The principal of a request; None without a valid credential."""
        header = request.headers.get("authorization")
        via: Literal["bearer", "cookie"]
        if header is not None:
            kind, _, credential = header.partition(" ")
            via, credential = "bearer", credential.strip()
            if kind.lower() != "bearer":
                return None
        else:
            via, credential = "cookie", request.cookies.get(SESSION_COOKIE, "")
        if not credential or len(credential) > 512:
            return None
        slot = (via, hash_secret(credential))
        now = time.monotonic()
        if (known := self._known.get(slot)) is not None and now - known[0] < _CACHE_SECONDS:
            return known[1]
        principal = await run_in_threadpool(self._look_up, via, credential)
        if principal is None:
            self._known.pop(slot, None)
            return None
        if now - self._touched.get(principal.key_id, -_TOUCH_SECONDS) >= _TOUCH_SECONDS:
            self._touched[principal.key_id] = now
            noting = asyncio.get_running_loop().create_task(run_in_threadpool(self._touch, principal.key_id))
            self._noting.add(noting)  # the loop alone would let it be collected
            noting.add_done_callback(self._noting.discard)
        if len(self._known) > 1000:
            self._known.clear()
        self._known[slot] = (now, principal)
        return principal

    def forget(self) -> None:
        """Drops what was believed, after a key or a session ended in this process."""
        self._known.clear()

    def _look_up(self, via: Literal["bearer", "cookie"], credential: str) -> Principal | None:
        with self._database.read() as session:
            if via == "bearer":
                key = verify_key(session, credential)
            else:
                key = Keys(session).session_key(hash_secret(credential))
            if key is None:
                return None
            return Principal(key.id, key.name, _scope(key.scope), via, key.project_id)

    def _touch(self, key_id: UUID) -> None:
        """Notes the use of a key; a database that cannot be written to now delays and fails no request for that."""
        with suppress(SQLAlchemyError), self._database.write() as session:
            Keys(session).touch(key_id)


def _scope(text: str) -> Scope:
    return next(scope for scope in SCOPES if scope == text)


async def authorize(request: Request) -> None:
    """The root router's dependency: nobody passes who the matched route's policy does not let pass."""
    policy = policy_of(request.scope.get("route"))
    if policy == "open":
        _check_origin(request)
        return
    principal = await request.app.state.gate.authenticate(request)
    if principal is None:
        raise _unauthenticated(request)
    if principal.via == "cookie":
        _check_origin(request)
    if policy is None or not principal.may(policy):
        raise ApiError(403, "insufficient_scope", f"this needs a key with the scope {policy}")
    request.state.principal = principal


def _unauthenticated(request: Request) -> ApiError:
    if wants_page(request):
        return ApiError(303, "login_required", "log in first", headers={"Location": login_address(request)})
    return ApiError(
        401,
        "unauthenticated",
        "send an active API key as `Authorization: Bearer KEY`; the first one is in the file admin-key of the server's "
        "data directory, `lco keys create` makes others",
        headers={"WWW-Authenticate": 'Bearer realm="lco"'},
    )


def login_address(request: Request) -> str:
    """The login page that leads back to the requested one."""
    from urllib.parse import quote

    path = request.scope["path"]
    query = request.scope["query_string"].decode("latin-1")
    return f"/login?next={quote(f'{path}?{query}' if query else path, safe='/')}"


def _check_origin(request: Request) -> None:
    """Refuses a change that another origin's page asks for; a browser always sends Origin with such requests."""
    if request.method in _SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    if origin is None:
        is_same = request.cookies.get(SESSION_COOKIE) is None
    else:
        is_same = urlsplit(origin).netloc == request.headers.get("host", "") and origin != "null"
    if not is_same:
        raise ApiError(403, "cross_origin", "a browser session may be used from the server's own pages alone")
