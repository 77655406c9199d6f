"""The files that a finished run published: completions, pairs, scores."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field
from sqlalchemy.orm import Session

from api import service_schemas
from api.auth import requires
from api.bodies import Body
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import ApiError
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import make_page, page_response
from api.routes.datasets import view
from api.schemas import Page
from lco.config import Config
from store.artifacts import published_files
from store.derived_datasets import published_rows
from store.repositories.datasets import Datasets
from store.repositories.runs import Runs
from store.specs import NAME_PATTERN

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


class KeepRequest(Config):
    """What data set the rows become."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    """Name of the data set; the rows are a version of it."""


@router.post(
    "/{run_id}/outputs/{name}/dataset",
    operation_id="runs.keep_output",
    status_code=201,
    response_model=service_schemas.DatasetRead,
    responses={200: {"model": service_schemas.DatasetRead, "description": "The newest version has these very rows."}},
)
@may_fail("invalid", "busy_name")
@requires("write")
def keep_output(
    database: DatabaseDep,
    settings: SettingsDep,
    run_id: str,
    name: Annotated[str, Path(max_length=64, description="`completions`, `pairs`, `rows`.")],
    spec: Annotated[Any, Depends(Body(KeepRequest))],
    once: OnceDep,
) -> Response:
    """Makes a data set of the pairs or completions that a run published: jobs name it as `dataset:NAME`."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        rows, origin = published_rows(session, settings, identifier, name)

    def work(session: Session) -> Reply:
        row, is_new = Datasets(session).add_version(spec.name, "jsonl", rows, origin)
        found = view(row)
        return Reply(201, found, location=f"/v1/datasets/{found.id}") if is_new else Reply(200, found)

    return once.run(work)
