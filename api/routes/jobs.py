"""Jobs: submit, list, look, cancel, pause, resume, retry."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.reward_checks import check_submitted
from api.routes.verbs import add_verbs
from store import control
from store.repositories.jobs import Jobs
from store.specs import JobSpec
from store.submission import submit_job

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobStatus = Annotated[
    Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"] | None,
    Query(description="Only this status."),
]
JobKind = Annotated[
    Literal["sft", "pairs", "dpo", "train", "evaluation", "score", "sample", "import"] | None,
    Query(description="Only this kind."),
]


@router.post("", operation_id="jobs.create", status_code=201, response_model=schemas.JobRead)
@may_fail("invalid")
@requires("write")
def create(
    spec: Annotated[Any, Depends(Body(JobSpec, toml=True))], database: DatabaseDep, settings: SettingsDep, once: OnceDep
) -> Response:
    """Submits a job: one run per seed. A training job's reward is tried on a few of its prompts first."""
    check_submitted(database, settings, spec)

    def work(session: Session) -> Reply:
        job = submit_job(session, spec, settings)
        found = views.job(session, job.id)
        return Reply(201, found, location=f"/v1/jobs/{found.id}")

    return once.run(work)


@router.get("", operation_id="jobs.list", response_model=schemas.Page[schemas.JobRead])
@requires("read")
def list_jobs(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    status: JobStatus = None,
    kind: JobKind = None,
    experiment: Annotated[str | None, Query(max_length=64, description="Only jobs of this experiment.")] = None,
) -> Response:
    """Jobs, newest first."""
    after, before = listing.cursors("job")
    experiment_id = cursor("exp", experiment, "experiment")
    with database.read() as session:
        rows = Jobs(session).page(
            listing.limit, after, before, listing.order, status=status, kind=kind, experiment_id=experiment_id
        )
        data = views.jobs(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [job.id for job in data]))


@router.get("/{job_id}", operation_id="jobs.get", response_model=schemas.JobRead)
@requires("read")
def get(request: Request, database: DatabaseDep, job_id: str) -> Response:
    """One job with its runs."""
    with database.read() as session:
        return object_response(request, views.job(session, parse_id("job", job_id)))


add_verbs(
    router,
    "job",
    schemas.JobRead,
    read=views.job,
    version=lambda session, job_id: Jobs(session).get(job_id).version,
    verbs={
        "cancel": (control.cancel_job, "Cancels every run that has not ended; final within seconds."),
        "pause": (
            control.pause_job,
            "Pauses every run that has not ended, after a checkpoint at its next step boundary.",
        ),
        "resume": (control.resume_job, "Resumes every paused run from its newest checkpoint."),
        "retry": (control.retry_job, "Ends the back-off of every run that waits for its next attempt."),
    },
)
