"""The API's own description as a document: `/openapi.json`. `/docs`, a page of the dashboard, shows the same."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.auth import requires

router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
@requires("read")
def openapi_document(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())
