"""Documents tried out: everything that a submission does, and nothing of it is kept."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from sqlalchemy.orm import Session

from api import service_schemas, views
from api.auth import requires
from api.bodies import Body, ExperimentBody, SubmittedExperiment, experiment_of
from api.check_schemas import CheckedJob, CheckRead
from api.dependencies import DatabaseDep, SettingsDep
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.reward_checks import check_submitted
from store.documents import Difference, differences, merged
from store.repositories.jobs import Experiments
from store.settings import Settings
from store.submission import submit_experiment

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.post("/check", operation_id="experiments.check", response_model=CheckRead)
@may_fail("invalid")
@requires("write")
def check(
    submitted: Annotated[Any, Depends(ExperimentBody())], database: DatabaseDep, settings: SettingsDep, once: OnceDep
) -> Response:
    """Checks a document as a submission does, inputs included, and tells what it would make; submits nothing."""
    check_submitted(database, settings, submitted.spec)
    return once.run(lambda session: Reply(200, _tried(session, submitted, settings)))


@router.post("/{exp_id}/clone/check", operation_id="experiments.check_clone", response_model=CheckRead)
@may_fail("invalid")
@requires("write")
def check_clone(
    exp_id: str,
    patch: Annotated[Any, Depends(Body(dict[str, Any]))],
    database: DatabaseDep,
    settings: SettingsDep,
    once: OnceDep,
) -> Response:
    """The same for a changed copy, with what differs from the original; the body is what `clone` takes."""
    with database.read() as session:
        document = merged(Experiments(session).get(parse_id("exp", exp_id)).document, patch)
    check_submitted(database, settings, experiment_of(document).spec)

    def work(session: Session) -> Reply:
        original = Experiments(session).get(parse_id("exp", exp_id)).document
        changed = merged(original, patch)
        submitted = experiment_of(changed)
        return Reply(200, _tried(session, submitted, settings, list(differences(original, changed))))

    return once.run(work)


def _tried(
    session: Session, submitted: SubmittedExperiment, settings: Settings, changes: Sequence[Difference] = ()
) -> CheckRead:
    """What a submission makes, which is rolled back at once."""
    with session.begin_nested() as attempt:
        row = submit_experiment(session, submitted.spec, settings, document=submitted.document)
        found = views.experiment(session, row.id)
        attempt.rollback()
    return CheckRead(
        name=found.name,
        num_jobs=len(found.jobs),
        num_runs=found.num_runs,
        num_reused=found.num_reused,
        jobs=[
            CheckedJob(
                name=job.name,
                kind=job.kind,
                method=job.method,
                needs=job.needs,
                seeds=[run.seed for run in job.runs],
                num_reused=sum(run.reused_run_id is not None for run in job.runs),
            )
            for job in found.jobs
        ],
        changes=[
            service_schemas.DiffRead(pointer=change.pointer, before=change.before, after=change.after)
            for change in changes
        ],
    )
