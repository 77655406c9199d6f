"""API keys and one-time login links."""

from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field, PositiveInt
from sqlalchemy.orm import Session

from api import schemas
from api.auth import Principal, create_key, requires, widen
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, TrailDep
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.routes.projects import visible
from api.service_schemas import ApiKeyCreated, ApiKeyRead, LoginLink
from api.sessions import LINK_SECONDS, create_link
from lco.config import Config
from store.errors import Conflict, Invalid, NotFound
from store.ids import decode_id, encode_id
from store.models.access import ApiKey
from store.models.base import utc_now
from store.repositories.keys import Keys
from store.repositories.projects import Projects

router = APIRouter(prefix="/v1", tags=["api_keys"])


class ApiKeySpec(Config):
    """A new API key."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
    """What it is for."""
    scope: Literal["read", "write", "admin"] = "read"
    """`write` includes `read`; `admin` includes both and the keys."""
    project: Annotated[str, Field(max_length=64)] | None = None
    """Id of the project that the key is for; by default the caller's. An admin key of the default project may name
    any."""
    expires_in_days: Annotated[PositiveInt, Field(le=3650)] | None = None
    """null never expires."""


def shown(row: ApiKey) -> ApiKeyRead:
    """An API key without its secret."""
    return ApiKeyRead(
        id=encode_id("key", row.id),
        project_id=encode_id("prj", row.project_id),
        name=row.name,
        scope=row.scope,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


@router.get("/api_keys", operation_id="api_keys.list", response_model=schemas.Page[ApiKeyRead])
@requires("admin")
def list_keys(
    request: Request,
    database: DatabaseDep,
    principal: PrincipalDep,
    listing: ListingDep,
    project: Annotated[str | None, Query(max_length=64, description="Only keys of this project.")] = None,
) -> Response:
    """API keys, newest first: of all projects for an admin key of the default one."""
    after, before = listing.cursors("key")
    project_id = cursor("prj", project, "project")
    with database.read() as session:
        widen(session, principal)
        rows = Keys(session).page(listing.limit, after, before, listing.order, project_id=project_id)
        data = [shown(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.post("/api_keys", operation_id="api_keys.create", status_code=201, response_model=ApiKeyCreated)
@requires("admin")
def create(
    principal: PrincipalDep, trail: TrailDep, spec: Annotated[ApiKeySpec, Depends(Body(ApiKeySpec))], once: OnceDep
) -> Response:
    """Makes an API key and shows it, once: a replayed reply has everything but the key."""
    expires_at = None if spec.expires_in_days is None else utc_now() + timedelta(days=spec.expires_in_days)

    def work(session: Session) -> Reply:
        trail.project_id = _project(session, principal, spec.project)
        row, key = create_key(session, spec.name, spec.scope, expires_at, trail.project_id)
        created = ApiKeyCreated(**shown(row).model_dump(), key="")
        return Reply(201, created, location=f"/v1/api_keys/{created.id}", secret={"key": key})

    return once.run(work)


def _project(session: Session, principal: Principal, text: str | None) -> UUID:
    """The project that a new key is for.

    Raises:
        Invalid: there is no such project for the caller.
        Conflict: it is archived.
    """
    if text is None:
        return principal.project_id
    try:
        project = Projects(session).get(decode_id("prj", text))
    except (ValueError, NotFound):
        project = None
    if project is None or visible(principal) not in (None, project.id):
        raise Invalid("/project", "there is no such project")
    if project.archived_at is not None:
        raise Conflict("project_archived", f"the project {project.name} is archived")
    return project.id


@router.get("/api_keys/{key_id}", operation_id="api_keys.get", response_model=ApiKeyRead)
@requires("admin")
def get(request: Request, database: DatabaseDep, principal: PrincipalDep, key_id: str) -> Response:
    """One API key."""
    with database.read() as session:
        widen(session, principal)
        return object_response(request, shown(Keys(session).get(parse_id("key", key_id))))


@router.post(
    "/api_keys/{key_id}/revoke",
    operation_id="api_keys.revoke",
    response_model=ApiKeyRead,
    dependencies=[Depends(no_body)],
)
@requires("admin")
def revoke(
    request: Request, principal: PrincipalDep, trail: TrailDep, key_id: Annotated[str, Path()], once: OnceDep
) -> Response:
    """Ends an API key and the sessions that came from it, within a second."""
    identifier = parse_id("key", key_id)

    def work(session: Session) -> Reply:
        widen(session, principal)
        row = Keys(session).revoke(identifier)
        trail.project_id = row.project_id
        return Reply(200, shown(row))

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
def create_login_link(principal: PrincipalDep, trail: TrailDep, once: OnceDep) -> Response:
    """Makes a link that opens one browser session with the caller's rights, once, within an hour."""

    def work(session: Session) -> Reply:
        trail.object_id = encode_id("key", principal.key_id)
        token = create_link(session, principal.key_id)
        link = LoginLink(path="", expires_in_seconds=LINK_SECONDS)
        return Reply(201, link, secret={"path": f"/login?link={token}"})

    return once.run(work)
