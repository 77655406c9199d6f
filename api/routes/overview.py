"""The overview: what goes on, on one page."""

from fastapi import APIRouter, Request, Response

from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.overview_schemas import OverviewRead
from api.overview_views import overview

router = APIRouter(prefix="/v1/overview", tags=["overview"])


@router.get("", operation_id="overview.get", response_model=OverviewRead)
@requires("read")
def get(request: Request, database: DatabaseDep) -> Response:
    """What runs with its remaining time, what failed and finished in the last day, the queue, slots and GPUs."""
    with database.read() as session:
        return object_response(request, overview(session))
