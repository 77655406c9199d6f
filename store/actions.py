"""What a schedule does when it fires: it submits a job or an experiment, or asks a suite for verdicts."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.ids import decode_id, encode_id
from store.models.job import Job
from store.repositories.jobs import Experiments
from store.schedule_specs import ExperimentAction, JobAction, SuiteAction, experiment_of, job_of
from store.settings import Settings
from store.states import TERMINAL
from store.submission import submit_experiment, submit_job


def perform(
    session: Session,
    settings: Settings,
    action: JobAction | ExperimentAction | SuiteAction,
    *,
    values: dict[str, str],
    checkpoint_id: UUID | None,
    cause: str,
    project_id: UUID,
) -> list[str]:
    """Does it, in the caller's transaction; the ids of what was submitted, as they are shown.

    Raises:
        StoreError, ValueError: it cannot be done as it stands.
    """
    if isinstance(action, JobAction):
        return [encode_id("job", submit_job(session, job_of(action, values), settings).id)]
    if isinstance(action, ExperimentAction):
        spec, document = experiment_of(action, values)
        return [encode_id("exp", submit_experiment(session, spec, settings, document=document).id)]
    raise ValueError("suites are not here yet")


def active_objects(session: Session, objects: Iterable[Any]) -> list[str]:
    """Those of some submitted objects that have not ended."""
    found = []
    for name in objects:
        prefix = str(name).partition("_")[0]
        if prefix == "job":
            status = session.scalar(select(Job.status).where(Job.id == decode_id("job", name)))
        else:
            identifier = decode_id("exp", name)
            status = Experiments(session).statuses([identifier]).get(identifier)
        if status is not None and status not in TERMINAL:
            found.append(str(name))
    return found
