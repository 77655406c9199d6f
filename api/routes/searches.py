"""Searches: the trials of an experiment."""

from fastapi import APIRouter, Request, Response

from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.search_schemas import SearchRead
from api.search_views import search

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.get("/{exp_id}/search", operation_id="experiments.search", response_model=SearchRead)
@requires("read")
def get_search(request: Request, database: DatabaseDep, exp_id: str) -> Response:
    """The trials of an experiment's search: their values, how far each is, who was stopped and why, the best."""
    with database.read() as session:
        return object_response(request, search(session, parse_id("exp", exp_id)))
