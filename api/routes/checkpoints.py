"""Checkpoints: list, look, pin, let expire, delete; their lineage and export."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from api import registry_schemas, registry_views, schemas, views
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response, require_match, wanted_range
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import Problem
from api.failures import may_fail
from api.idempotency import Once, OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.result_views import unit_of
from api.routes.deletions import files_removed
from store.database import database_time
from store.deletion import delete_checkpoint
from store.exports import archive_of
from store.lineage import lineage_of
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
    experiment: Annotated[str | None, Query(max_length=64, description="Only checkpoints of this experiment.")] = None,
    kind: Annotated[Literal["state", "model"] | None, Query(description="Only this kind.")] = None,
    pinned: Annotated[bool | None, Query(description="Only those that are pinned, or that are not.")] = None,
    deleted: Annotated[
        bool, Query(description="Those whose files are no more, instead of those that are there.")
    ] = False,
) -> Response:
    """Checkpoints, newest first."""
    after, before = listing.cursors("ckpt")
    with database.read() as session:
        rows = Checkpoints(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            run_id=cursor("run", run, "run"),
            job_id=cursor("job", job, "job"),
            experiment_id=cursor("exp", experiment, "experiment"),
            kind=kind,
            is_pinned=pinned,
            is_deleted=deleted,
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


@router.patch(
    "/{ckpt_id}",
    operation_id="checkpoints.update",
    response_model=schemas.CheckpointRead,
    responses={412: {"model": Problem}, 428: {"model": Problem}},
)
@may_fail("if_match_required", "stale")
@requires("write")
def update(
    request: Request,
    database: DatabaseDep,
    ckpt_id: str,
    patch: Annotated[Any, Depends(Body(registry_schemas.CheckpointPatch))],
) -> Response:
    """Pins a checkpoint, or says when it ends. `If-Match` names the version that was read."""
    with database.write() as session:
        row = Checkpoints(session).get(parse_id("ckpt", ckpt_id), is_locked=True)
        require_match(request, views.checkpoints(session, [row])[0])
        if patch.pinned is not None:
            row.is_pinned = patch.pinned
        if "expires_in_days" in patch.model_fields_set:
            days = patch.expires_in_days
            row.expires_at = None if days is None else database_time(session) + timedelta(days=days)
        session.flush()
        found = views.checkpoints(session, [row])[0]
    return object_response(request, found)


@router.delete(
    "/{ckpt_id}",
    operation_id="checkpoints.delete",
    status_code=204,
    response_class=Response,
    responses={409: {"model": Problem}},
    dependencies=[Depends(no_body)],
)
@may_fail("held", "invalid_state")
@requires("write")
def delete(database: DatabaseDep, settings: SettingsDep, principal: PrincipalDep, ckpt_id: str) -> Response:
    """Gives up a checkpoint's files; what was measured on it stays. Refused while a pin, an alias or a job holds it."""
    with database.write() as session:
        delete_checkpoint(session, parse_id("ckpt", ckpt_id), f"on request of the key {principal.name}")
    return Response(status_code=204, background=files_removed(settings, database))


@router.get("/{ckpt_id}/lineage", operation_id="checkpoints.lineage", response_model=registry_schemas.LineageRead)
@requires("read")
def lineage(request: Request, database: DatabaseDep, ckpt_id: str) -> Response:
    """Everything that a checkpoint was made from, and everything made or measured from it; also of a deleted one."""
    with database.read() as session:
        row = Checkpoints(session).get(parse_id("ckpt", ckpt_id), is_deleted_too=True)
        return object_response(request, registry_views.lineage(ckpt_id, lineage_of(session, row)))


@router.get(
    "/{ckpt_id}/export",
    operation_id="checkpoints.export",
    response_class=Response,
    responses={
        200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range that was asked for."},
        416: {"model": Problem},
    },
)
@may_fail("range_not_satisfiable", "damaged", "invalid")
@requires("read")
def export(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    ckpt_id: str,
    form: Annotated[
        Literal["merged", "adapter"],
        Query(description="The whole model, an adapter merged into it; or the adapter alone, as peft reads it."),
    ] = "merged",
) -> Response:
    """A published model with its model card and SHA256SUMS, as an uncompressed tar; goes on where it was cut off
    (`Range` with `If-Range`).
    """
    with database.read() as session:
        row = Checkpoints(session).get(parse_id("ckpt", ckpt_id))
        archive = archive_of(session, settings, row, form, unit_of)
    name = ckpt_id if form == "merged" else f"{ckpt_id}-adapter"
    headers = {
        "ETag": archive.etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{name}.tar"',
        "Cache-Control": "private, no-cache",
    }
    start, end = wanted_range(request, archive.size_bytes, archive.etag)
    status = 200
    if (start, end) != (0, archive.size_bytes):
        status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{archive.size_bytes}"
    headers["Content-Length"] = str(end - start)
    return StreamingResponse(archive.bytes_from(start, end), status, headers, "application/x-tar")


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
