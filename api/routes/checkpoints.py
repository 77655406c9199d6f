"""Checkpoints: list, look."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import schemas, views
from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from store.repositories.records import Checkpoints

router = APIRouter(prefix="/v1/checkpoints", tags=["checkpoints"])


@router.get("", operation_id="checkpoints.list", response_model=schemas.Page[schemas.CheckpointRead])
@requires("read")
def list_checkpoints(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    run: Annotated[str | None, Query(max_length=64, description="Only checkpoints of this run.")] = None,
    job: Annotated[str | None, Query(max_length=64, description="Only checkpoints of this job.")] = None,
    kind: Annotated[str | None, Query(pattern="^(state|model)$", description="Only this kind.")] = None,
) -> Response:
    """Checkpoints, newest first."""
    after, before = listing.cursors("ckpt")
    run_id, job_id = cursor("run", run, "run"), cursor("job", job, "job")
    with database.read() as session:
        rows = Checkpoints(session).page(
            listing.limit, after, before, listing.order, run_id=run_id, job_id=job_id, kind=kind
        )
        data = views.checkpoints(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{ckpt_id}", operation_id="checkpoints.get", response_model=schemas.CheckpointRead)
@requires("read")
def get(request: Request, database: DatabaseDep, ckpt_id: str) -> Response:
    """One checkpoint."""
    with database.read() as session:
        row = Checkpoints(session).get(parse_id("ckpt", ckpt_id))
        return object_response(request, views.checkpoints(session, [row])[0])
