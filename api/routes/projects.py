"""Projects: list, create, look, set quotas, archive."""

from collections.abc import Iterable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session

from api import schemas
from api.auth import Principal, requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, TrailDep
from api.errors import ApiError
from api.idempotency import Once, OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.project_schemas import ProjectRead, QuotasRead, UsageRead
from lco.config import Config
from store.confinement import released
from store.errors import NotFound
from store.ids import encode_id
from store.models.project import DEFAULT_PROJECT_ID, Project
from store.repositories.projects import QUOTAS, Projects
from store.specs import NAME_PATTERN

router = APIRouter(prefix="/v1/projects", tags=["projects"])

_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Quotas(Config):
    max_gpu_slots: _Count | None = None
    """GPUs that live runs may hold at once; null for no bound."""
    max_running_runs: _Count | None = None
    """Live runs at once; null for no bound."""
    max_storage_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    """Checkpoints and data sets together; null for no bound."""
    max_judge_spend: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None
    """USD that judges may cost in a calendar month (UTC); null for no bound."""


class ProjectSpec(_Quotas):
    """A new project."""

    name: _Name
    """Small letters, digits, dots, hyphens and underscores; no two projects have the same."""


class ProjectPatch(_Quotas):
    """What to change; what is left out stays as it is."""

    name: _Name = ""
    """Left out, the name stays."""


def shown(session: Session, rows: Iterable[Project]) -> list[ProjectRead]:
    """Projects with what they use, for the wire."""
    found = list(rows)
    with released(session):  # who may see a project may see what it uses
        usage = Projects(session).usage([row.id for row in found])
    return [
        ProjectRead(
            id=encode_id("prj", row.id),
            name=row.name,
            is_default=row.id == DEFAULT_PROJECT_ID,
            quotas=QuotasRead(**{name: getattr(row, name) for name in QUOTAS}),
            usage=UsageRead.model_validate(usage[row.id], from_attributes=True),
            created_at=row.created_at,
            archived_at=row.archived_at,
        )
        for row in found
    ]


def visible(principal: Principal) -> UUID | None:
    """The only project that a caller sees; None for an operator, who sees all."""
    return None if principal.is_operator else principal.project_id


def _operator(principal: PrincipalDep) -> Principal:
    """The caller, who must be an operator.

    Raises:
        ApiError: it is not.
    """
    if not principal.is_operator:
        raise ApiError(403, "operator_only", "this needs an admin key of the default project")
    return principal


OperatorDep = Annotated[Principal, Depends(_operator)]


@router.get("", operation_id="projects.list", response_model=schemas.Page[ProjectRead])
@requires("read")
def list_projects(
    request: Request,
    database: DatabaseDep,
    principal: PrincipalDep,
    listing: ListingDep,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only the project of this name.")] = None,
) -> Response:
    """Projects, newest first: all for an admin key of the default project, their own for others."""
    after, before = listing.cursors("prj")
    with database.read() as session:
        rows = Projects(session).page(
            listing.limit, after, before, listing.order, project_id=visible(principal), name=name
        )
        data = shown(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.post("", operation_id="projects.create", status_code=201, response_model=ProjectRead)
@requires("admin")
def create(operator: OperatorDep, spec: Annotated[Any, Depends(Body(ProjectSpec))], once: OnceDep) -> Response:
    """Makes a project; API keys for it are made with `project`."""

    def work(session: Session) -> Reply:
        row = Projects(session).create(spec.name, spec.model_dump(include=set(QUOTAS)))
        (found,) = shown(session, [row])
        return Reply(201, found, location=f"/v1/projects/{found.id}")

    return once.run(work)


@router.get("/{prj_id}", operation_id="projects.get", response_model=ProjectRead)
@requires("read")
def get(request: Request, database: DatabaseDep, principal: PrincipalDep, prj_id: str) -> Response:
    """One project: its quotas, and what it uses now."""
    identifier = parse_id("prj", prj_id)
    if visible(principal) not in (None, identifier):
        raise NotFound("project", prj_id)
    with database.read() as session:
        (found,) = shown(session, [Projects(session).get(identifier)])
    return object_response(request, found)


@router.patch("/{prj_id}", operation_id="projects.change", response_model=ProjectRead)
@requires("admin")
def change(
    operator: OperatorDep,
    database: DatabaseDep,
    trail: TrailDep,
    prj_id: str,
    patch: Annotated[Any, Depends(Body(ProjectPatch))],
) -> Response:
    """Sets the name or quotas; runs that a worker holds already go on."""
    values = patch.model_dump(include=patch.model_fields_set)
    trail.details |= values
    with database.write() as session:
        (found,) = shown(session, [Projects(session).change(parse_id("prj", prj_id), values)])
    return Response(found.model_dump_json(), media_type="application/json")


def _archive(once: Once, prj_id: str, *, is_archived: bool) -> Response:
    identifier = parse_id("prj", prj_id)

    def work(session: Session) -> Reply:
        (found,) = shown(session, [Projects(session).archive(identifier, is_archived=is_archived)])
        return Reply(200, found)

    return once.run(work)


@router.post(
    "/{prj_id}/archive",
    operation_id="projects.archive",
    response_model=ProjectRead,
    dependencies=[Depends(no_body)],
)
@requires("admin")
def archive(operator: OperatorDep, prj_id: str, once: OnceDep) -> Response:
    """Ends a project: nothing new is taken, what is there stays readable, what is queued goes on."""
    return _archive(once, prj_id, is_archived=True)


@router.post(
    "/{prj_id}/unarchive",
    operation_id="projects.unarchive",
    response_model=ProjectRead,
    dependencies=[Depends(no_body)],
)
@requires("admin")
def unarchive(operator: OperatorDep, prj_id: str, once: OnceDep) -> Response:
    """Takes a project up again."""
    return _archive(once, prj_id, is_archived=False)
