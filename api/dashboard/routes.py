"""The pages' router: lists, signing in and out, and one page for an experiment, a job, a run and a table of results."""

from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import result_views, schemas, views
from api.auth import requires
from api.dashboard import (
    analysis,
    comparing,
    data,
    forms,
    lists,
    overview,
    reference,
    registry,
    rollouts,
    samples,
    schedules,
    settings,
    signing,
    suites,
    webhooks,
)
from api.dashboard.graph import lay_out
from api.dashboard.matrix import grids
from api.dashboard.pages import controls, every, page
from api.dashboard.search import drawn, label
from api.dashboard.tables import MetricTable, by_method
from api.dashboard.words import all_runs, readings, took
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.search_views import search
from store.ids import encode_id
from store.repositories.jobs import Experiments
from store.repositories.records import Checkpoints, Events, Results
from store.repositories.runs import Runs
from store.states import RunState

router = APIRouter(include_in_schema=False)
router.include_router(forms.router)  # before `/experiments/{experiment_id}`: `new` is no id

_EVENTS = 50
_COMPLETIONS = 25
_CHECKPOINTS = 40
_MOST_BOXES = 60
"""Jobs up to which the graph of an experiment is drawn: beyond, its table and its matrix tell more."""
_TRAINING_KINDS = frozenset({"sft", "dpo", "train"})
Level = Annotated[str, Query(pattern="^(warning|error)?$")]
VERDICTS = ("correct", "wrong", "no_answer", "timeout", "error", "skipped", "scored")


@router.get("/experiments/{experiment_id}")
@requires("read")
def experiment(request: Request, database: DatabaseDep, experiment_id: str) -> Response:
    """One experiment: its graph, its results, its jobs."""
    with database.read() as session:
        found = views.experiment(session, parse_id("exp", experiment_id))
        document = Experiments(session).get(parse_id("exp", experiment_id)).document
        tables = _tables(session, found)
        searched = search(session, parse_id("exp", found.id)) if "search" in document else None
        original = found.cloned_from and Experiments(session).name(parse_id("exp", found.cloned_from))
    runs = all_runs(found.jobs)
    return page(
        request,
        "experiment.html",
        experiment=found,
        original=original,
        graph=lay_out(found.jobs) if len(found.jobs) <= _MOST_BOXES else None,
        grids=grids(document, found.jobs, tables),
        tables=tables,
        search=searched,
        drawing=None if searched is None else drawn(searched),
        label=label,
        elapsed=took(runs),
        can=controls(runs),
        twin=f"/v1/experiments/{found.id}",
        every=every(runs),
    )


@router.get("/jobs/{job_id}")
@requires("read")
def job(request: Request, database: DatabaseDep, job_id: str, level: Level = "") -> Response:
    """One job: its runs, their curves, its events, what was submitted."""
    with database.read() as session:
        identifier = parse_id("job", job_id)
        found = views.job(session, identifier)
        runs = views.runs(session, Runs(session).of_jobs([identifier]).get(identifier, []))
        events = Events(session).page(identifier, _EVENTS, order="desc", level=level or None)
        checkpoints = _checkpoints(session, job_id=identifier)
        tables = (
            by_method(result_views.results_table(session, job_id=identifier).rows) if found.kind == "evaluation" else []
        )
        parent = _parent(session, found)
    return page(
        request,
        "job.html",
        job=found,
        runs=runs,
        experiment=parent,
        events=[views.event(event) for event in events.rows],
        seeds={run.id: run.seed for run in runs},
        levels=_levels(f"/jobs/{found.id}", level),
        checkpoints=checkpoints,
        tables=tables,
        has_curves=found.kind in _TRAINING_KINDS,
        can=controls(runs),
        twin=f"/v1/jobs/{found.id}",
        every=every(runs),
    )


@router.get("/runs/{run_id}")
@requires("read")
def run(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    verdict: Annotated[str, Query(pattern=f"^({'|'.join(VERDICTS)})?$")] = "",
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
    level: Level = "",
) -> Response:
    """One run: curves, log, attempts, events; for an evaluation every completion."""
    with database.read() as session:
        identifier = parse_id("run", run_id)
        found = views.run(session, identifier)
        its_job = views.job(session, parse_id("job", found.job_id))
        attempts = [views.attempt(attempt) for attempt in Runs(session).attempts(identifier)]
        events = Events(session).page(
            parse_id("job", its_job.id), _EVENTS, order="desc", run_id=identifier, level=level or None
        )
        checkpoints = _checkpoints(session, run_id=identifier)
        measured = [result_views.result(row) for row in Results(session).page(100, order="asc", run_id=identifier).rows]
        rows = Results(session).completions(identifier, _COMPLETIONS, after, verdict=verdict or None)
        rivals = _rivals(session, found) if rows.rows else []
        completions = [result_views.completion(row) for row in rows.rows]
        published = Checkpoints(session).page(1, run_id=identifier, kind="model").rows
        sampled = rollouts.newest(session, identifier) if found.kind == "train" else []
        parent = _parent(session, its_job)
    next_page = _completions_address(found.id, verdict, rows.rows[-1].position) if rows.has_more else None
    return page(
        request,
        "run.html",
        run=found,
        job=its_job,
        experiment=parent,
        attempts=attempts,
        events=[views.event(event) for event in events.rows],
        levels=_levels(f"/runs/{found.id}", level),
        checkpoints=checkpoints,
        measured=measured,
        latest=readings(found.latest_metrics),
        has_curves=found.kind in _TRAINING_KINDS,
        has_completions=found.kind == "evaluation",
        completions=completions,
        rivals=rivals,
        rollouts=rollouts.groups(sampled),
        published=encode_id("ckpt", published[0].id) if published else None,
        filtered=bool(verdict),
        verdicts=[
            {
                "label": choice.replace("_", " ") or "all",
                "href": _completions_address(found.id, choice),
                "is_here": choice == verdict,
            }
            for choice in ("", *VERDICTS)
        ],
        links={"first": _completions_address(found.id, verdict) if after is not None else None, "after": next_page},
        can=controls([found]),
        twin=f"/v1/runs/{found.id}",
        every=every([found]),
    )


@router.get("/results")
@requires("read")
def results(request: Request, database: DatabaseDep, experiment: Annotated[str, Query(max_length=64)] = "") -> Response:
    """The table of results of one experiment, of the newest one unless told."""
    with database.read() as session:
        rows = Experiments(session).page(100).rows
        choices = [{"id": encode_id("exp", row.id), "name": row.name, "created_at": row.created_at} for row in rows]
        wanted = parse_id("exp", experiment) if experiment else rows[0].id if rows else None
        found = None if wanted is None else views.experiment(session, wanted)
        tables = [] if found is None else _tables(session, found)
    query = "" if found is None else urlencode({"experiment": found.id})
    return page(
        request,
        "results.html",
        experiments=choices,
        experiment=found,
        tables=tables,
        twin=f"/v1/results/table?{query}" if query else "",
        every=0 if found is None else every(all_runs(found.jobs)),
    )


def _checkpoints(
    session: Session, *, job_id: UUID | None = None, run_id: UUID | None = None
) -> list[schemas.CheckpointRead]:
    """The newest checkpoints of a job or a run."""
    rows = Checkpoints(session).page(_CHECKPOINTS, job_id=job_id, run_id=run_id).rows
    return views.checkpoints(session, rows)


def _levels(path: str, chosen: str) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "href": f"{path}?level={level}#events" if level else f"{path}#events",
            "is_here": level == chosen,
        }
        for level, label in (("", "all"), ("warning", "warnings"), ("error", "errors"))
    ]


def _tables(session: Session, experiment: schemas.ExperimentRead) -> list[MetricTable]:
    """The results of an experiment, methods in the order of its jobs."""
    table = result_views.results_table(session, experiment_id=parse_id("exp", experiment.id))
    return by_method(table.rows, [job.method for job in experiment.jobs])


def _parent(session: Session, job: schemas.JobRead) -> Any:
    """The experiment of a job, if it has one: its id and name."""
    if job.experiment_id is None:
        return None
    row = Experiments(session).get(parse_id("exp", job.experiment_id))
    return {"id": job.experiment_id, "name": row.name}


def _rivals(session: Session, run: schemas.RunRead) -> list[schemas.RunRead]:
    """Other finished evaluations of its experiment, those of the same seed first."""
    experiment_id = parse_id("exp", run.experiment_id) if run.experiment_id else None
    if experiment_id is None:
        return []
    rows = Runs(session).page(100, experiment_id=experiment_id, kind=run.kind, state=RunState.SUCCEEDED).rows
    found = [other for other in views.runs(session, rows) if other.id != run.id]
    return sorted(found, key=lambda other: (other.seed != run.seed, other.job_name, other.seed))


def _completions_address(run_id: str, verdict: str, after: int | None = None) -> str:
    query = {name: value for name, value in (("verdict", verdict), ("after", after)) if value not in ("", None)}
    return f"/runs/{run_id}{'?' + urlencode(query) if query else ''}#completions"


router.include_router(overview.router)
router.include_router(lists.router)
router.include_router(data.router)
router.include_router(analysis.router)
router.include_router(registry.router)
router.include_router(comparing.router)
router.include_router(suites.router)
router.include_router(reference.router)
router.include_router(schedules.router)
router.include_router(webhooks.router)
router.include_router(rollouts.router)
router.include_router(samples.router)
router.include_router(settings.router)
router.include_router(signing.router)
