"""Workers: list, look."""

from fastapi import APIRouter, Request, Response

from api import schemas, service_schemas, views
from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from store.repositories.workers import Workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", operation_id="workers.list", response_model=schemas.Page[service_schemas.WorkerRead])
@requires("read")
def list_workers(request: Request, database: DatabaseDep, listing: ListingDep) -> Response:
    """Workers, newest first."""
    after, before = listing.cursors("wrk")
    with database.read() as session:
        rows = Workers(session).page(listing.limit, after, before, listing.order)
        data = [views.worker(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{wrk_id}", operation_id="workers.get", response_model=service_schemas.WorkerRead)
@requires("read")
def get(request: Request, database: DatabaseDep, wrk_id: str) -> Response:
    """One worker."""
    with database.read() as session:
        return object_response(request, views.worker(Workers(session).get(parse_id("wrk", wrk_id))))
