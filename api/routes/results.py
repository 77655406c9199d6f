"""Results: the table over seeds, the rows behind it."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api import result_schemas, result_views, schemas
from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.errors import ApiError, FieldError
from api.failures import may_fail
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.routes.comparisons import SIGNIFICANCE, comparisons
from api.table_formats import MEDIA_TYPES, rendered
from store.repositories.records import Results

router = APIRouter(prefix="/v1/results", tags=["results"])
_Name = Annotated[str | None, Query(max_length=128)]
_Seed = Annotated[int | None, Query(ge=0, le=2**63 - 1)]


@router.get("", operation_id="results.list", response_model=schemas.Page[result_schemas.ResultRead])
@requires("read")
def list_results(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    experiment: Annotated[str | None, Query(max_length=64, description="Only results of this experiment.")] = None,
    job: Annotated[str | None, Query(max_length=64, description="Only results of this evaluation job.")] = None,
    run: Annotated[str | None, Query(max_length=64, description="Only results of this evaluation run.")] = None,
    checkpoint: Annotated[str | None, Query(max_length=64, description="Only results of this checkpoint.")] = None,
    method: _Name = None,
    benchmark: _Name = None,
    metric: _Name = None,
    decoding: _Name = None,
    train_seed: _Seed = None,
    eval_seed: _Seed = None,
) -> Response:
    """Results, newest first: one per policy, benchmark, metric, train seed, eval seed and decoding."""
    after, before = listing.cursors("res")
    filters = {
        "experiment_id": cursor("exp", experiment, "experiment"),
        "job_id": cursor("job", job, "job"),
        "run_id": cursor("run", run, "run"),
        "checkpoint_id": cursor("ckpt", checkpoint, "checkpoint"),
    }
    with database.read() as session:
        rows = Results(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            **filters,
            method=method,
            benchmark=benchmark,
            metric=metric,
            decoding=decoding,
            train_seed=train_seed,
            eval_seed=eval_seed,
        )
        data = [result_views.result(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get(
    "/table",
    operation_id="results.table",
    response_model=result_schemas.ResultsTable,
    responses={
        200: {"content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}}
    },
)
@may_fail("invalid", "not_found")
@requires("read")
def table(
    request: Request,
    database: DatabaseDep,
    experiment: Annotated[str | None, Query(max_length=64, description="Of this experiment.")] = None,
    job: Annotated[str | None, Query(max_length=64, description="Of this evaluation job.")] = None,
    metric: Annotated[str | None, Query(max_length=128, description="Only this metric.")] = None,
    format: Annotated[
        Literal["json", "csv", "markdown", "latex", "html"],
        Query(description="`csv` has every number; the printed forms have methods down and benchmarks across."),
    ] = "json",
    baseline: Annotated[
        str | None,
        Query(max_length=64, description="Printed forms of an experiment: mark what differs significantly from it."),
    ] = None,
) -> Response:
    """Mean over eval seeds within each train seed, then mean, standard deviation (ddof = 1) and n over train seeds."""
    if (experiment is None) == (job is None):
        error = FieldError(pointer="/query/experiment", code="one_of", message="give either experiment or job")
        raise ApiError(422, "invalid_parameter", error.message, [error])
    with database.read() as session:
        if experiment is not None:
            found = result_views.results_table(session, experiment_id=parse_id("exp", experiment))
        else:
            found = result_views.results_table(session, job_id=parse_id("job", job or ""))
        marked = set()
        if baseline is not None and experiment is not None:
            marked = {
                (one.method, one.benchmark, one.metric, one.decoding, one.configuration)
                for one in comparisons(session, experiment, baseline, metric=metric)
                if one.adjusted_p is not None and one.adjusted_p < SIGNIFICANCE
            }
    found.rows = [row for row in found.rows if metric in (None, row.metric)]
    if format == "json":
        return object_response(request, found)
    return Response(rendered(found.rows, format, marked), media_type=MEDIA_TYPES[format])


@router.get("/{res_id}", operation_id="results.get", response_model=result_schemas.ResultRead)
@requires("read")
def get(request: Request, database: DatabaseDep, res_id: str) -> Response:
    """One result."""
    with database.read() as session:
        return object_response(request, result_views.result(Results(session).get(parse_id("res", res_id))))
