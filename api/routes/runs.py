"""Runs: list, look, cancel, pause, resume, retry, and what they leave behind."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import result_schemas, result_views, schemas, views
from api.auth import requires
from api.conditional import object_response
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import ListingDep, Order, cursor, make_page, number_cursor, page_response
from api.routes.verbs import add_verbs
from store import control
from store.repositories.records import Change, Results
from store.repositories.runs import Runs
from store.retention import refuse_purged
from store.states import RunState

router = APIRouter(prefix="/v1/runs", tags=["runs"])
MAX_INTEGER = 2**63 - 1


@router.get("", operation_id="runs.list", response_model=schemas.Page[schemas.RunRead])
@requires("read")
def list_runs(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    job: Annotated[str | None, Query(max_length=64, description="Only runs of this job.")] = None,
    experiment: Annotated[str | None, Query(max_length=64, description="Only runs of this experiment.")] = None,
    state: Annotated[RunState | None, Query(description="Only runs in this state.")] = None,
    kind: Annotated[str | None, Query(max_length=64, description="Only runs of jobs of this kind.")] = None,
) -> Response:
    """Runs, newest first."""
    after, before = listing.cursors("run")
    with database.read() as session:
        rows = Runs(session).page(
            listing.limit,
            after,
            before,
            listing.order,
            job_id=cursor("job", job, "job"),
            experiment_id=cursor("exp", experiment, "experiment"),
            state=state,
            kind=kind,
        )
        data = views.runs(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [run.id for run in data]))


@router.get("/{run_id}", operation_id="runs.get", response_model=schemas.RunRead)
@requires("read")
def get(request: Request, database: DatabaseDep, run_id: str) -> Response:
    """One run."""
    with database.read() as session:
        return object_response(request, views.run(session, parse_id("run", run_id)))


add_verbs(
    router,
    "run",
    schemas.RunRead,
    read=views.run,
    version=lambda session, run_id: Runs(session).get(run_id).version,
    verbs={
        "cancel": (control.cancel, "Cancels the run; final within seconds."),
        "pause": (control.pause, "Pauses the run at its next step boundary, after a checkpoint."),
        "resume": (control.resume, "Resumes the run from its newest checkpoint."),
        "retry": (control.retry, "Ends the run's back-off before its next attempt."),
    },
)


@router.get("/{run_id}/attempts", operation_id="runs.attempts", response_model=schemas.Page[schemas.AttemptRead])
@requires("read")
def attempts(request: Request, database: DatabaseDep, run_id: str) -> Response:
    """The tries at a run, first one first; all on one page."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        Runs(session).get(identifier)
        data = [views.attempt(row) for row in Runs(session).attempts(identifier)]
    return page_response(request, make_page(data, False, [str(item.n) for item in data]))


@router.get("/{run_id}/metrics", operation_id="runs.metrics", response_model=schemas.MetricsRead)
@requires("read")
def metrics(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    keys: Annotated[str | None, Query(max_length=2000, description="Only these metrics, separated by commas.")] = None,
    from_step: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Only from this step on.")] = 0,
    max_points: Annotated[
        int, Query(ge=1, le=10_000, description="Longer curves are thinned: mean, least and greatest value per bucket.")
    ] = 1000,
) -> Response:
    """Curves of a run."""
    wanted = [key for key in keys.split(",") if key] if keys is not None else None
    with database.read() as session:
        refuse_purged(Runs(session).get(parse_id("run", run_id)), "metrics")
        found = views.metrics(session, parse_id("run", run_id), wanted, from_step, max_points)
    return object_response(request, found)


@router.get(
    "/{run_id}/completions", operation_id="runs.completions", response_model=schemas.Page[result_schemas.CompletionRead]
)
@requires("read")
def completions(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=20, description="Begin after this position.")] = None,
    before: Annotated[str | None, Query(max_length=20, description="End before this position.")] = None,
    order: Annotated[Order, Query(description="By position.")] = "asc",
    verdict: Annotated[str | None, Query(max_length=64)] = None,
    benchmark: Annotated[str | None, Query(max_length=128)] = None,
    decoding: Annotated[str | None, Query(max_length=128)] = None,
    eval_seed: Annotated[int | None, Query(ge=0, le=MAX_INTEGER)] = None,
    example_id: Annotated[str | None, Query(max_length=128)] = None,
) -> Response:
    """Completions of an evaluation run, with prompt, extracted answer, verdict and seed."""
    identifier = parse_id("run", run_id)
    with database.read() as session:
        refuse_purged(Runs(session).get(identifier), "completions")
        rows = Results(session).completions(
            identifier,
            limit,
            number_cursor(after, "after"),
            number_cursor(before, "before"),
            order,
            benchmark=benchmark,
            decoding=decoding,
            eval_seed=eval_seed,
            example_id=example_id,
            verdict=verdict,
        )
        data = [result_views.completion(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [str(item.position) for item in data]))


@router.get(
    "/{run_id}/completions/against/{other_id}",
    operation_id="runs.side_by_side",
    response_model=schemas.Page[result_schemas.CompletionPair],
)
@requires("read")
def side_by_side(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    other_id: str,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=20, description="Begin after this position.")] = None,
    before: Annotated[str | None, Query(max_length=20, description="End before this position.")] = None,
    order: Annotated[Order, Query(description="By position in the first run.")] = "asc",
    change: Annotated[
        Change | None,
        Query(description="Only verdicts that became right (gained), wrong (lost), or either (flipped) in the second."),
    ] = None,
) -> Response:
    """Completions of two evaluation runs, the same problem, decoding, eval seed and sample side by side."""
    identifiers = [parse_id("run", one) for one in (run_id, other_id)]
    with database.read() as session:
        for one in identifiers:
            refuse_purged(Runs(session).get(one), "completions")
        rows = Results(session).side_by_side(
            identifiers[0],
            identifiers[1],
            limit,
            number_cursor(after, "after"),
            number_cursor(before, "before"),
            order,
            change=change,
        )
        data = [result_views.completion_pair(*pair) for pair in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [str(item.position) for item in data]))
