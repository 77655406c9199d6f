"""What a schedule does when it fires: it submits a job or an experiment, or asks a suite for verdicts."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.errors import Invalid, NotFound
from store.ids import decode_id, encode_id
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import OPEN, Verdict
from store.regression import request_verdict, resolve_checkpoint
from store.repositories.jobs import Experiments
from store.repositories.suites import Suites
from store.schedule_specs import AliasSelection, ExperimentAction, JobAction, SuiteAction, experiment_of, job_of
from store.settings import Settings
from store.sources import GIVES
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
    suite_id = decode_id("suite", action.suite)
    verdicts = [
        request_verdict(session, settings, suite_id=suite_id, checkpoint_id=one, cause=cause, project_id=project_id)
        for one in _chosen(session, action, checkpoint_id)
    ]
    return [encode_id("vrd", verdict.id) for verdict in verdicts]


def _chosen(session: Session, action: SuiteAction, found: UUID | None) -> list[UUID]:
    """The checkpoints that an action means now, in the session's project.

    Raises:
        NotFound: no checkpoint has the alias.
        Invalid: there is none that meets the filter.
    """
    chosen = action.checkpoints
    if isinstance(chosen, AliasSelection):
        return [resolve_checkpoint(session, f"alias:{chosen.alias}")]
    if chosen is None:
        if found is None:
            raise Invalid("/checkpoints", "only a watcher finds some by itself")
        return [found]
    kinds = [kind for kind, gives in GIVES.items() if "model" in gives]
    query = (
        select(Checkpoint.id)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(
            Checkpoint.project_id == project_of(session),
            Checkpoint.kind == "model",
            Checkpoint.deleted_at.is_(None),
            Job.kind.in_(kinds),
        )
    )
    if chosen.job is not None:
        query = query.where(Job.name == chosen.job)
    for key, text in chosen.metadata.items():
        query = query.where(Job.details[key].as_string() == text)
    identifiers = list(session.scalars(query.order_by(Checkpoint.id.desc()).limit(chosen.newest)))[::-1]
    if not identifiers:
        raise Invalid("/checkpoints", "there is no published model that meets the filter")
    return identifiers


def check_suite(session: Session, action: JobAction | ExperimentAction | SuiteAction) -> None:
    """Refuses an action that names a suite which the session's project does not have.

    Raises:
        Invalid: names the field.
    """
    if not isinstance(action, SuiteAction):
        return
    try:
        Suites(session).get(decode_id("suite", action.suite))
    except (NotFound, ValueError):
        raise Invalid("/action/suite", "there is no such suite") from None


def active_objects(session: Session, objects: Iterable[Any]) -> list[str]:
    """Those of some submitted objects that have not ended."""
    found = []
    for name in objects:
        prefix = str(name).partition("_")[0]
        if prefix == "job":
            status = session.scalar(select(Job.status).where(Job.id == decode_id("job", name)))
        elif prefix == "vrd":
            is_open = select(Verdict.id).where(Verdict.id == decode_id("vrd", name), Verdict.state.in_(OPEN))
            status = None if session.scalar(is_open) is None else "running"
        else:
            identifier = decode_id("exp", name)
            status = Experiments(session).statuses([identifier]).get(identifier)
        if status is not None and status not in TERMINAL:
            found.append(str(name))
    return found
