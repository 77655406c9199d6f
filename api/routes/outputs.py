"""The files that a finished run published: completions, pairs, scores."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse

from api import service_schemas
from api.auth import requires
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import ApiError
from api.ids import parse_id
from api.pagination import make_page, page_response
from api.schemas import Page
from store.artifacts import published_files
from store.repositories.runs import Runs

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_MEDIA_TYPES = {".json": "application/json", ".jsonl": "application/jsonl"}


@router.get("/{run_id}/outputs", operation_id="runs.outputs", response_model=Page[service_schemas.OutputRead])
@requires("read")
def list_outputs(request: Request, database: DatabaseDep, settings: SettingsDep, run_id: str) -> Response:
    """The published files of a run, all on one page; none before it succeeded. A model's directory is no file."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        run = Runs(session).get(identifier)
    places = published_files(settings, run.reused_run_id or identifier, run.output_attempt)
    data = [
        service_schemas.OutputRead(
            name=name,
            size_bytes=place.stat().st_size,
            media_type=_MEDIA_TYPES.get(place.suffix, "application/octet-stream"),
            url=f"/v1/runs/{run_id}/outputs/{name}",
        )
        for name, place in sorted(places.items())
    ]
    return page_response(request, make_page(data, False, [item.name for item in data]))


@router.get(
    "/{run_id}/outputs/{name}",
    operation_id="runs.output",
    response_class=FileResponse,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
)
@requires("read")
def get_output(
    database: DatabaseDep,
    settings: SettingsDep,
    run_id: str,
    name: Annotated[str, Path(max_length=64, description="`completions`, `pairs`, `results`, `score`, ...")],
) -> Response:
    """One published file, whole or by byte ranges."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        run = Runs(session).get(identifier)
    place = published_files(settings, run.reused_run_id or identifier, run.output_attempt).get(name)
    if place is None:
        raise ApiError(404, "not_found", "the run has published no such file")
    return FileResponse(
        place, media_type=_MEDIA_TYPES.get(place.suffix, "application/octet-stream"), filename=f"{run_id}-{place.name}"
    )
