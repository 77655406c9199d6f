"""Experiments: submit, list, look, cancel, pause, resume."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.routes.verbs import add_verbs
from store import control
from store.repositories.jobs import Experiments, Jobs
from store.specs import NAME_PATTERN, ExperimentSpec
from store.submission import submit_experiment

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.post("", operation_id="experiments.create", status_code=201, response_model=schemas.ExperimentRead)
@requires("write")
def create(
    spec: Annotated[Any, Depends(Body(ExperimentSpec, toml=True))], settings: SettingsDep, once: OnceDep
) -> Response:
    """Submits several jobs and their dependencies at once."""

    def work(session: Session) -> Reply:
        experiment = submit_experiment(session, spec, settings)
        found = views.experiment(session, experiment.id)
        return Reply(201, found, location=f"/v1/experiments/{found.id}")

    return once.run(work)


@router.get("", operation_id="experiments.list", response_model=schemas.Page[schemas.ExperimentRead])
@requires("read")
def list_experiments(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    name: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Only experiments of this name.")] = None,
) -> Response:
    """Experiments with their graphs, newest first."""
    after, before = listing.cursors("exp")
    with database.read() as session:
        rows = Experiments(session).page(listing.limit, after, before, listing.order, name=name)
        data = views.experiments(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{exp_id}", operation_id="experiments.get", response_model=schemas.ExperimentRead)
@requires("read")
def get(request: Request, database: DatabaseDep, exp_id: str) -> Response:
    """One experiment: the graph with live states."""
    with database.read() as session:
        return object_response(request, views.experiment(session, parse_id("exp", exp_id)))


def _version(session: Session, experiment_id: UUID) -> int:
    Experiments(session).get(experiment_id)
    return sum(job.version for job in Jobs(session).of_experiment(experiment_id))


add_verbs(
    router,
    "exp",
    schemas.ExperimentRead,
    read=views.experiment,
    version=_version,
    verbs={
        "cancel": (control.cancel_experiment, "Cancels every run that has not ended."),
        "pause": (control.pause_experiment, "Pauses every run that has not ended."),
        "resume": (control.resume_experiment, "Resumes every paused run."),
    },
)
