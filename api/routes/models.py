"""Models that came from elsewhere: register, list, look, remove."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api import registry_schemas, registry_views
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import Problem
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.routes.deletions import files_removed
from api.schemas import Page
from lco.hub_config import ImportConfig
from store import registration
from store.repositories.models import Models

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "",
    operation_id="models.create",
    status_code=201,
    response_model=registry_schemas.ModelRead,
    responses={409: {"model": Problem}},
)
@may_fail("invalid", "taken")
@requires("write")
def create(
    settings: SettingsDep, once: OnceDep, spec: Annotated[Any, Depends(Body(registry_schemas.ModelSpec))]
) -> Response:
    """Registers a model: a job fetches it from the hub, or its directory below the models root is read and hashed."""
    files = registration.hash_local(settings, spec.name) if spec.source.kind == "local" else None

    def work(session: Session) -> Reply:
        if files is not None:
            row = registration.register_local(session, spec.name, files)
        else:
            config = ImportConfig(hub_id=spec.source.hub_id, revision=spec.source.revision)
            row = registration.register_hub(session, settings, spec.name, config)
        found = registry_views.models(session, [row])[0]
        return Reply(201, found, location=f"/v1/models/{found.id}")

    return once.run(work)


@router.get("", operation_id="models.list", response_model=Page[registry_schemas.ModelRead])
@requires("read")
def list_models(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    name: Annotated[str | None, Query(max_length=128, description="Only the model of this name.")] = None,
) -> Response:
    """Registered models, newest first."""
    after, before = listing.cursors("mdl")
    with database.read() as session:
        rows = Models(session).page(listing.limit, after, before, listing.order, name=name)
        data = registry_views.models(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{mdl_id}", operation_id="models.get", response_model=registry_schemas.ModelRead)
@requires("read")
def get(request: Request, database: DatabaseDep, mdl_id: str) -> Response:
    """One registered model."""
    with database.read() as session:
        row = Models(session).get(parse_id("mdl", mdl_id))
        return object_response(request, registry_views.models(session, [row])[0])


@router.delete(
    "/{mdl_id}",
    operation_id="models.delete",
    status_code=204,
    response_class=Response,
    responses={409: {"model": Problem}, 410: {"model": Problem}},
    dependencies=[Depends(no_body)],
)
@may_fail("held", "invalid_state")
@requires("write")
def delete(database: DatabaseDep, settings: SettingsDep, principal: PrincipalDep, mdl_id: str) -> Response:
    """Forgets a name. Files that were fetched go; those below the models root stay."""
    with database.write() as session:
        registration.remove_model(session, parse_id("mdl", mdl_id), f"on request of the key {principal.name}")
    return Response(status_code=204, background=files_removed(settings, database))
