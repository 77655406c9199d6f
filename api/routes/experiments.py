"""Experiments: submit, list, look, cancel, pause, resume."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from api import schemas, service_schemas, views
from api.auth import requires
from api.bodies import Body, ExperimentBody, SubmittedExperiment, experiment_of
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, cursor, make_page, page_response
from api.reward_checks import check_submitted
from api.routes.runs import MAX_INTEGER
from api.routes.verbs import add_verbs
from lco.metrics import STABILITY
from store import control
from store.documents import differences, merged
from store.errors import Invalid
from store.repositories.jobs import Experiments, Jobs
from store.settings import Settings
from store.specs import NAME_PATTERN
from store.submission import submit_experiment

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.post("", operation_id="experiments.create", status_code=201, response_model=schemas.ExperimentRead)
@may_fail("invalid")
@requires("write")
def create(
    submitted: Annotated[Any, Depends(ExperimentBody())], database: DatabaseDep, settings: SettingsDep, once: OnceDep
) -> Response:
    """Submits several jobs and their dependencies at once; templates over the axes of a matrix are expanded."""
    check_submitted(database, settings, submitted.spec)
    return once.run(lambda session: _submitted(session, submitted, settings))


def _submitted(
    session: Session, submitted: SubmittedExperiment, settings: Settings, cloned_from: UUID | None = None
) -> Reply:
    experiment = submit_experiment(
        session, submitted.spec, settings, document=submitted.document, cloned_from=cloned_from
    )
    found = views.experiment(session, experiment.id)
    return Reply(201, found, location=f"/v1/experiments/{found.id}")


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


@router.get("/{exp_id}/document", operation_id="experiments.document", response_model=dict[str, Any])
@requires("read")
def document(database: DatabaseDep, exp_id: str) -> Response:
    """The document that was submitted: what to edit and submit again."""
    with database.read() as session:
        return JSONResponse(Experiments(session).get(parse_id("exp", exp_id)).document)


@router.post(
    "/{exp_id}/clone", operation_id="experiments.clone", status_code=201, response_model=schemas.ExperimentRead
)
@may_fail("invalid")
@requires("write")
def clone(
    exp_id: str,
    patch: Annotated[Any, Depends(Body(dict[str, Any]))],
    database: DatabaseDep,
    settings: SettingsDep,
    once: OnceDep,
) -> Response:
    """Submits a changed copy: the body is a JSON Merge Patch (RFC 7396) of the document; `{}` submits it once more."""
    with database.read() as session:
        document = merged(Experiments(session).get(parse_id("exp", exp_id)).document, patch)
    check_submitted(database, settings, experiment_of(document).spec)

    def work(session: Session) -> Reply:
        original = Experiments(session).get(parse_id("exp", exp_id))
        changed = experiment_of(merged(original.document, patch))
        return _submitted(session, changed, settings, cloned_from=original.id)

    return once.run(work)


@router.get("/{exp_id}/diff", operation_id="experiments.diff", response_model=schemas.Page[service_schemas.DiffRead])
@may_fail("invalid")
@requires("read")
def diff(
    request: Request,
    database: DatabaseDep,
    exp_id: str,
    against: Annotated[
        str | None,
        Query(max_length=64, description="The experiment to compare with; by default the one it was cloned from."),
    ] = None,
) -> Response:
    """What differs between the documents of two experiments, place by place; all on one page."""
    with database.read() as session:
        experiments = Experiments(session)
        later = experiments.get(parse_id("exp", exp_id))
        earlier_id = cursor("exp", against, "against") or later.cloned_from
        if earlier_id is None:
            raise Invalid("/query/against", "this experiment is no copy: name one to compare with")
        earlier = experiments.get(earlier_id)
    data = [
        service_schemas.DiffRead(pointer=change.pointer, before=change.before, after=change.after)
        for change in differences(earlier.document, later.document)
    ]
    return page_response(request, make_page(data, False, [change.pointer for change in data]))


@router.get("/{exp_id}/curves", operation_id="experiments.curves", response_model=schemas.CurvesRead)
@requires("read")
def curves(
    request: Request,
    database: DatabaseDep,
    exp_id: str,
    keys: Annotated[
        str | None,
        Query(
            max_length=2000,
            description=f"These metrics, separated by commas; by default `{','.join(STABILITY)}`.",
        ),
    ] = None,
    kind: Annotated[str | None, Query(max_length=64, description="Only jobs of this kind.")] = None,
    from_step: Annotated[int, Query(ge=0, le=MAX_INTEGER, description="Only from this step on.")] = 0,
    max_points: Annotated[
        int,
        Query(ge=1, le=10_000, description="Longer curves are thinned: over each seed's mean of neighbouring steps."),
    ] = 500,
) -> Response:
    """Metrics of every job by step: mean, standard deviation (ddof = 1) and number of seeds."""
    wanted = [key for key in keys.split(",") if key] if keys is not None else STABILITY
    with database.read() as session:
        found = views.curves(session, parse_id("exp", exp_id), wanted, kind, from_step, max_points)
    return object_response(request, found)


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
