"""Checkpoints: list, look, pin."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.bodies import no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.idempotency import Once, OnceDep, Reply
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
    kind: Annotated[Literal["state", "model"] | None, Query(description="Only this kind.")] = None,
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


@router.post(
    "/{ckpt_id}/pin",
    operation_id="checkpoints.pin",
    response_model=schemas.CheckpointRead,
    dependencies=[Depends(no_body)],
)
@requires("write")
def pin(ckpt_id: str, once: OnceDep) -> Response:
    """Marks a checkpoint as one to keep."""
    return _marked(ckpt_id, once, is_pinned=True)


@router.post(
    "/{ckpt_id}/unpin",
    operation_id="checkpoints.unpin",
    response_model=schemas.CheckpointRead,
    dependencies=[Depends(no_body)],
)
@requires("write")
def unpin(ckpt_id: str, once: OnceDep) -> Response:
    """Takes the mark away."""
    return _marked(ckpt_id, once, is_pinned=False)


def _marked(ckpt_id: str, once: Once, *, is_pinned: bool) -> Response:
    identifier = parse_id("ckpt", ckpt_id)

    def work(session: Session) -> Reply:
        row = Checkpoints(session).pin(identifier, is_pinned=is_pinned)
        return Reply(200, views.checkpoints(session, [row])[0])

    return once.run(work)
