"""API keys and one-time login links."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field, PositiveInt
from sqlalchemy.orm import Session

from api import schemas
from api.auth import create_key, requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.service_schemas import ApiKeyCreated, ApiKeyRead, LoginLink
from api.sessions import LINK_SECONDS, create_link
from lco.config import Config
from store.ids import encode_id
from store.models.access import ApiKey
from store.models.base import utc_now
from store.repositories.keys import Keys

router = APIRouter(prefix="/v1", tags=["api_keys"])


class ApiKeySpec(Config):
    """A new API key."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
    """What it is for."""
    scope: Literal["read", "write", "admin"] = "read"
    """`write` includes `read`; `admin` includes both and the keys."""
    expires_in_days: Annotated[PositiveInt, Field(le=3650)] | None = None
    """null never expires."""


def shown(row: ApiKey) -> ApiKeyRead:
    """An API key without its secret."""
    return ApiKeyRead(
        id=encode_id("key", row.id),
        name=row.name,
        scope=row.scope,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


@router.get("/api_keys", operation_id="api_keys.list", response_model=schemas.Page[ApiKeyRead])
@requires("admin")
def list_keys(request: Request, database: DatabaseDep, listing: ListingDep) -> Response:
    """API keys, newest first."""
    after, before = listing.cursors("key")
    with database.read() as session:
        rows = Keys(session).page(listing.limit, after, before, listing.order)
        data = [shown(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.post("/api_keys", operation_id="api_keys.create", status_code=201, response_model=ApiKeyCreated)
@requires("admin")
def create(spec: Annotated[ApiKeySpec, Depends(Body(ApiKeySpec))], once: OnceDep) -> Response:
    """Makes an API key and shows it, once: a replayed reply has everything but the key."""
    expires_at = None if spec.expires_in_days is None else utc_now() + timedelta(days=spec.expires_in_days)

    def work(session: Session) -> Reply:
        row, key = create_key(session, spec.name, spec.scope, expires_at)
        created = ApiKeyCreated(**shown(row).model_dump(), key="")
        return Reply(201, created, location=f"/v1/api_keys/{created.id}", secret={"key": key})

    return once.run(work)


@router.get("/api_keys/{key_id}", operation_id="api_keys.get", response_model=ApiKeyRead)
@requires("admin")
def get(request: Request, database: DatabaseDep, key_id: str) -> Response:
    """One API key."""
    with database.read() as session:
        return object_response(request, shown(Keys(session).get(parse_id("key", key_id))))


@router.post(
    "/api_keys/{key_id}/revoke",
    operation_id="api_keys.revoke",
    response_model=ApiKeyRead,
    dependencies=[Depends(no_body)],
)
@requires("admin")
def revoke(request: Request, key_id: Annotated[str, Path()], once: OnceDep) -> Response:
    """Ends an API key and the sessions that came from it, within a second."""
    identifier = parse_id("key", key_id)

    def work(session: Session) -> Reply:
        return Reply(200, shown(Keys(session).revoke(identifier)))

    response = once.run(work)
    request.app.state.gate.forget()
    return response


@router.post(
    "/login_links",
    operation_id="login_links.create",
    status_code=201,
    response_model=LoginLink,
    dependencies=[Depends(no_body)],
)
@requires("write")
def create_login_link(principal: PrincipalDep, once: OnceDep) -> Response:
    """Makes a link that opens one browser session with the caller's rights, once, within an hour."""

    def work(session: Session) -> Reply:
        token = create_link(session, principal.key_id)
        link = LoginLink(path="", expires_in_seconds=LINK_SECONDS)
        return Reply(201, link, secret={"path": f"/login?link={token}"})

    return once.run(work)
