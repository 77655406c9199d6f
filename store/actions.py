"""What a schedule does when it fires: it submits a job or an experiment, or asks a suite for verdicts."""

import itertools
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.ids import decode_id, encode_id
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import OPEN, Verdict
from store.regression import request_verdict, resolve_checkpoint
from store.repositories.jobs import Experiments
from store.schedule_specs import AliasSelection, ExperimentAction, JobAction, SuiteAction, experiment_of, job_of
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
    return ask_suite(session, settings, action, checkpoint_id, cause, project_id)


def ask_suite(
    session: Session, settings: Settings, action: SuiteAction, checkpoint_id: UUID | None, cause: str, project_id: UUID
) -> list[str]:
    """Asks a suite for its verdicts on the action's checkpoints; their ids, as they are shown.

    Args:
        checkpoint_id: what a watcher found.

    Raises:
        StoreError, ValueError: there is no such suite, or nothing to judge.
    """
    chosen = _chosen(session, action, checkpoint_id, project_id)
    if not chosen:
        raise ValueError("no published model meets what the action says")
    suite_id = decode_id("suite", action.suite)
    verdicts = [
        request_verdict(session, settings, suite_id=suite_id, checkpoint_id=one, cause=cause, project_id=project_id)
        for one in chosen
    ]
    return [encode_id("vrd", verdict.id) for verdict in verdicts]


def _chosen(session: Session, action: SuiteAction, checkpoint_id: UUID | None, project_id: UUID) -> list[UUID]:
    wanted = action.checkpoints
    if wanted is None:
        if checkpoint_id is None:
            raise ValueError("the model that was found is no checkpoint of the platform: a job can evaluate it")
        return [checkpoint_id]
    if isinstance(wanted, AliasSelection):
        return [resolve_checkpoint(session, f"alias:{wanted.alias}")]
    query = (
        select(Checkpoint.id, Job.details)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(Checkpoint.kind == "model", Checkpoint.project_id == project_id, Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc())
    )
    if wanted.job is not None:
        query = query.where(Job.name == wanted.job)
    labels = wanted.metadata.items()
    found = (row.id for row in session.execute(query) if all(row.details.get(key) == value for key, value in labels))
    return list(itertools.islice(found, wanted.newest))[::-1]


def active_objects(session: Session, objects: Iterable[Any]) -> list[str]:
    """Those of some submitted objects that have not ended."""
    found = []
    for name in objects:
        prefix = str(name).partition("_")[0]
        status: str | None
        if prefix == "vrd":
            state = session.scalar(select(Verdict.state).where(Verdict.id == decode_id("vrd", name)))
            status = state if state in OPEN else None
        elif prefix == "job":
            status = session.scalar(select(Job.status).where(Job.id == decode_id("job", name)))
        else:
            identifier = decode_id("exp", name)
            status = Experiments(session).statuses([identifier]).get(identifier)
        if status is not None and status not in TERMINAL:
            found.append(str(name))
    return found
