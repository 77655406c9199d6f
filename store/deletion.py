"""Deletion, first half: rows, in the caller's transaction. What their files are is noted there as `removals`, which
`store.gc` carries out after the commit: killed at any point, the same is left to do.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from store import artifacts, holders
from store.database import database_time
from store.errors import Conflict
from store.ids import encode_id, new_id
from store.models.job import Experiment, Job
from store.models.mirror import Mirror
from store.models.record import Checkpoint, Completion, Event, LogChunk, Metric, Result, Rollout
from store.models.registry import Removal
from store.models.run import Attempt, Run, RunDependency
from store.states import TERMINAL, job_status
from store.tombstones import absent, bury


def delete_checkpoint(session: Session, checkpoint_id: UUID, reason: str) -> Checkpoint:
    """Gives up a checkpoint's files; its row stays as what results were measured on. Repeating changes nothing.

    Raises:
        NotFound: there is none.
        Conflict: something holds it; says what.
    """
    row = session.get(Checkpoint, checkpoint_id, with_for_update=True)
    if row is None:
        raise absent(session, "checkpoint", checkpoint_id)
    if row.deleted_at is not None:
        return row
    if row.run_id is not None:  # a submission that is about to take it waits here, or has been counted below
        session.execute(select(Run.id).where(Run.id == row.run_id).with_for_update())
    if reasons := holders.of_checkpoints(session, [row]).get(row.id):
        raise Conflict("held", f"it cannot be deleted: {holders.told(reasons)}")
    mark_deleted(session, row, reason)
    return row


def mark_deleted(session: Session, row: Checkpoint, reason: str, *, has_files: bool = True) -> None:
    """Marks a checkpoint that nothing holds, and notes its files for removal."""
    row.deleted_at, row.deleted_reason = database_time(session), reason
    session.flush()
    if has_files:
        note_removals(session, artifacts.files_of(row), reason)


def note_removals(session: Session, paths: Sequence[str], reason: str) -> None:
    """Notes paths, relative to the artifact root, whose files are to be removed after the commit."""
    moment = database_time(session)
    rows: list[dict[str, Any]] = [
        {"id": new_id(), "path": path, "reason": reason, "created_at": moment} for path in paths
    ]
    if rows:
        session.execute(insert(Removal), rows)


def forget_states(session: Session, run_id: UUID, attempt: int) -> None:
    """Resumable states of an attempt that has succeeded and removed them: their rows say so, and copies of them that
    are elsewhere are removed.
    """
    states = select(Checkpoint).where(
        Checkpoint.run_id == run_id,
        Checkpoint.attempt == attempt,
        Checkpoint.kind == "state",
        Checkpoint.deleted_at.is_(None),
    )
    for row in session.scalars(states).all():
        mark_deleted(session, row, "its run has succeeded")


def delete_run(session: Session, run_id: UUID, reason: str) -> None:
    """Deletes an ended run with everything that it left.

    Raises:
        NotFound: there is none.
        Conflict: it has not ended, is the only one of its job, or something was made from it.
    """
    run = session.get(Run, run_id)
    if run is None:
        raise absent(session, "run", run_id)
    if session.scalar(select(func.count()).where(Run.job_id == run.job_id)) == 1:
        raise Conflict("held", "it is the only run of its job: delete the job")
    _delete(session, [run_id], [], reason)
    left = session.scalars(select(Run.state).where(Run.job_id == run.job_id))
    session.execute(update(Job).where(Job.id == run.job_id).values(status=job_status(left), version=Job.version + 1))


def delete_job(session: Session, job_id: UUID, reason: str) -> None:
    """Deletes an ended job with its runs and everything that they left.

    Raises:
        NotFound: there is none.
        Conflict: it has not ended, or something was made from it.
    """
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise absent(session, "job", job_id)
    _delete(session, list(session.scalars(select(Run.id).where(Run.job_id == job_id))), [job_id], reason)


def delete_experiment(session: Session, experiment_id: UUID, reason: str) -> None:
    """Deletes an ended experiment with its jobs and everything that they left.

    Raises:
        NotFound: there is none.
        Conflict: it has not ended, or something outside it was made from it.
    """
    experiment = session.get(Experiment, experiment_id, with_for_update=True)
    if experiment is None:
        raise absent(session, "experiment", experiment_id)
    jobs = list(session.scalars(select(Job.id).where(Job.experiment_id == experiment_id).order_by(Job.id)))
    runs = list(session.scalars(select(Run.id).where(Run.job_id.in_(jobs))))
    size = _delete(session, runs, jobs, reason)
    if reasons := holders.rows_elsewhere(session, {"experiments": [experiment_id]}):
        raise Conflict("held", f"it cannot be deleted: {holders.told(reasons)}")
    session.execute(delete(Experiment).where(Experiment.id == experiment_id))
    bury(session, "experiment", [(experiment_id, experiment.name, size)], reason)


def _delete(session: Session, run_ids: Collection[UUID], job_ids: Sequence[UUID], reason: str) -> int:
    """Deletes runs, and jobs all of whose runs are among them; the bytes of their checkpoints.

    Raises:
        Conflict: a run has not ended, or something outside refers to one of them.
    """
    # A submission that takes one of these as an input holds its row until it commits, or waits and finds it gone.
    locked = select(Run.id, Run.state, Run.seed).where(Run.id.in_(run_ids)).order_by(Run.id).with_for_update()
    runs = session.execute(locked).all()
    if live := [run for run in runs if run.state not in TERMINAL]:
        shown = f"{encode_id('run', live[0].id)} is {live[0].state}"
        raise Conflict("invalid_state", f"only what has ended can be deleted: {shown}; cancel it first", live[0].state)
    if reasons := holders.of_runs(session, run_ids, job_ids):
        raise Conflict("held", f"it cannot be deleted: {holders.told(reasons)}")
    names = dict(session.execute(select(Job.id, Job.name).where(Job.id.in_(job_ids))).all())
    mine = Checkpoint.run_id.in_(run_ids)
    rows = session.execute(select(Checkpoint.id, Checkpoint.kind, Checkpoint.size_bytes).where(mine)).all()
    size = sum(num_bytes for _, _, num_bytes in rows)
    bury(session, "checkpoint", [(row[0], row[1], row[2]) for row in rows], reason)
    bury(session, "run", [(run.id, f"seed {run.seed}", 0) for run in runs], reason)
    bury(session, "job", [(job_id, names[job_id], 0) for job_id in job_ids], reason)
    note_removals(session, [artifacts.runs_path(run.id) for run in runs], reason)
    for table in (Completion, Result, Metric, LogChunk, Rollout, Mirror):
        session.execute(delete(table).where(table.run_id.in_(run_ids)))
    session.execute(delete(Event).where(Event.job_id.in_(job_ids)))
    session.execute(update(Event).where(Event.run_id.in_(run_ids)).values(run_id=None))  # a job's are gapless
    session.execute(delete(Checkpoint).where(mine))
    either = RunDependency.run_id.in_(run_ids) | RunDependency.needs_id.in_(run_ids)
    session.execute(delete(RunDependency).where(either))
    session.execute(delete(Attempt).where(Attempt.run_id.in_(run_ids)))
    session.execute(delete(Run).where(Run.id.in_(run_ids)))
    session.execute(delete(Job).where(Job.id.in_(job_ids)))
    return size
