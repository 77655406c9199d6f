"""What submitting an experiment would do and cost, without submitting it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select

from api.auth import requires
from api.bodies import ExperimentBody, SubmittedExperiment
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import FieldError
from api.price_schemas import CheckRead
from api.price_views import check
from store.database import Database
from store.errors import Invalid
from store.models.job import Job
from store.models.run import Run
from store.pricing import DEVICES
from store.settings import Settings
from store.submission import submit_experiment

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


class _Undone(Exception):
    """Ends a transaction without its writes."""


@router.post("/check", operation_id="experiments.check", response_model=CheckRead)
@requires("write")
def check_experiment(
    request: Request,
    submitted: Annotated[Any, Depends(ExperimentBody())],
    database: DatabaseDep,
    settings: SettingsDep,
    device: Annotated[
        str, Query(pattern=f"^({'|'.join(DEVICES)})$", description="The device that hours and memory are told of.")
    ] = "h100",
) -> Response:
    """Says whether a document would be taken, which runs it would reuse, and what it costs; nothing is kept.

    A document that is wrong by itself is a 422, as it is for submitting. What only this platform refuses, such as an
    input that is not there, stands in `errors` beside the price.
    """
    errors, num_reused = _tried(database, submitted, settings)
    return object_response(request, check(submitted, device, errors, num_reused))


def _tried(
    database: Database, submitted: SubmittedExperiment, settings: Settings
) -> tuple[list[FieldError], int | None]:
    """Submits in a transaction that is taken back: why it is refused, or how many runs take over outputs."""
    num_reused = 0
    try:
        with database.write() as session:
            experiment = submit_experiment(session, submitted.spec, settings, document=submitted.document)
            jobs = select(Job.id).where(Job.experiment_id == experiment.id)
            reused = select(Run.id).where(Run.job_id.in_(jobs), Run.reused_run_id.is_not(None))
            num_reused = len(session.scalars(reused).all())
            raise _Undone
    except _Undone:
        return [], num_reused
    except Invalid as error:
        return [FieldError(pointer=error.pointer, code="invalid", message=error.message)], None
