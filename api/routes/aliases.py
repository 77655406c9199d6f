"""Aliases: names for checkpoints, such as `champion`, which jobs take as `alias:NAME`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from api import service_schemas
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, TrailDep
from api.failures import may_fail
from api.pagination import make_page, page_response
from api.schemas import Page
from lco.config import Config
from store.errors import Invalid, NotFound
from store.ids import decode_id, encode_id
from store.models.dataset import Alias
from store.repositories.aliases import Aliases
from store.specs import NAME_PATTERN

router = APIRouter(prefix="/v1/aliases", tags=["aliases"])


class AliasSpec(Config):
    """What a name shall mean."""

    checkpoint: Annotated[str, Field(min_length=1, max_length=64)]
    """Id of a published model: `ckpt_...`."""


def shown(row: Alias) -> service_schemas.AliasRead:
    """An alias, for the wire."""
    return service_schemas.AliasRead(
        name=row.name,
        source=f"alias:{row.name}",
        checkpoint_id=encode_id("ckpt", row.checkpoint_id),
        updated_at=row.updated_at,
    )


@router.get("", operation_id="aliases.list", response_model=Page[service_schemas.AliasRead])
@requires("read")
def list_aliases(
    request: Request,
    database: DatabaseDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Objects on the page.")] = 20,
    after: Annotated[str | None, Query(max_length=64, description="Begin after this name.")] = None,
) -> Response:
    """Aliases in alphabetical order."""
    with database.read() as session:
        rows = Aliases(session).page(limit, after)
        data = [shown(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.name for item in data]))


@router.get("/{name}", operation_id="aliases.get", response_model=service_schemas.AliasRead)
@requires("read")
def get(request: Request, database: DatabaseDep, name: str) -> Response:
    """One alias."""
    with database.read() as session:
        return object_response(request, shown(Aliases(session).get(name)))


@router.put(
    "/{name}",
    operation_id="aliases.put",
    response_model=service_schemas.AliasRead,
    responses={201: {"model": service_schemas.AliasRead, "description": "The name is new."}},
)
@may_fail("invalid")
@requires("write")
def put(
    database: DatabaseDep,
    trail: TrailDep,
    spec: Annotated[Any, Depends(Body(AliasSpec))],
    name: Annotated[str, Path(pattern=NAME_PATTERN)],
) -> Response:
    """Gives a published model a name, which another checkpoint loses. Jobs submitted before keep theirs."""
    try:
        identifier = decode_id("ckpt", spec.checkpoint)
        trail.details["checkpoint"] = spec.checkpoint
        with database.write() as session:
            alias, is_new = Aliases(session).put(name, identifier)
            found = shown(alias)
    except (ValueError, NotFound):
        raise Invalid("/checkpoint", "there is no such checkpoint") from None
    return Response(found.model_dump_json(), 201 if is_new else 200, media_type="application/json")


@router.delete(
    "/{name}", operation_id="aliases.delete", status_code=204, response_class=Response, dependencies=[Depends(no_body)]
)
@requires("write")
def delete(database: DatabaseDep, name: str) -> Response:
    """Takes a name away; the checkpoint stays."""
    with database.write() as session:
        Aliases(session).remove(name)
    return Response(status_code=204)
