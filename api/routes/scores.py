"""Scores: outputs that exist already, graded by a job of kind `score`. Nothing is graded in this process."""

import json
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from api import schemas, service_schemas, views
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from store.artifacts import published_files
from store.errors import NotFound
from store.ids import encode_id
from store.models.run import Run
from store.repositories.jobs import Jobs
from store.repositories.runs import Runs
from store.settings import Settings
from store.specs import ScoreRequest
from store.submission import submit_job

router = APIRouter(prefix="/v1/scores", tags=["scores"])


@router.post("", operation_id="scores.create", status_code=201, response_model=schemas.JobRead)
@may_fail("invalid")
@requires("write")
def create(
    score: Annotated[Any, Depends(Body(ScoreRequest, toml=True))], settings: SettingsDep, once: OnceDep
) -> Response:
    """Submits outputs to be graded; answers with the job that grades them."""

    def work(session: Session) -> Reply:
        found = views.job(session, submit_job(session, score.spec(), settings).id)
        return Reply(201, found, location=f"/v1/scores/{found.id}")

    return once.run(work)


@router.get("", operation_id="scores.list", response_model=schemas.Page[service_schemas.ScoreRead])
@requires("read")
def list_scores(request: Request, database: DatabaseDep, settings: SettingsDep, listing: ListingDep) -> Response:
    """Score jobs with their figures, newest first."""
    after, before = listing.cursors("job")
    with database.read() as session:
        rows = Jobs(session).page(listing.limit, after, before, listing.order, kind="score")
        data = [score_view(session, settings, row.id) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{job_id}", operation_id="scores.get", response_model=service_schemas.ScoreRead)
@requires("read")
def get(request: Request, database: DatabaseDep, settings: SettingsDep, job_id: str) -> Response:
    """One score job with its figures."""
    with database.read() as session:
        return object_response(request, score_view(session, settings, parse_id("job", job_id)))


def score_view(session: Session, settings: Settings, job_id: UUID) -> service_schemas.ScoreRead:
    """A score job with the figures that it has published."""
    job = views.job(session, job_id)
    if job.kind != "score":
        raise NotFound("score", job.id)
    runs = [_scored_run(settings, run) for run in Runs(session).of_jobs([job_id])[job_id]]
    return service_schemas.ScoreRead(
        id=job.id,
        name=job.name,
        scoring=job.spec["config"]["scoring"]["name"],
        status=job.status,
        figures=runs[0].figures if len(runs) == 1 else None,
        runs=runs,
        created_at=job.created_at,
    )


def _scored_run(settings: Settings, run: Run) -> service_schemas.ScoredRun:
    files = published_files(settings, run.reused_run_id or run.id, run.output_attempt)
    run_id = encode_id("run", run.id)
    return service_schemas.ScoredRun(
        id=run_id,
        seed=run.seed,
        state=run.state,
        error=run.error_message or None,
        figures=json.loads(files["score"].read_bytes()) if "score" in files else None,
        rows_url=f"/v1/runs/{run_id}/outputs/rows" if "rows" in files else None,
    )
