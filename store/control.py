"""What a person asks of runs: cancel, pause, resume, retry. `decide` says what follows."""

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.orm import Session

from store.database import database_time
from store.effects import Happening, after_end, requeue_values, settle, state_event
from store.errors import Conflict, NotFound
from store.ids import encode_id
from store.models.job import Experiment, Job
from store.models.run import Run
from store.states import TERMINAL, Decision, Desired, RunState, decide


def cancel(session: Session, run_id: UUID) -> Run:
    """Ends a run: at once where no worker holds it, else when its worker has stopped it. Repeating changes nothing.

    Raises:
        NotFound: there is no such run.
        Conflict: it has ended otherwise.
    """
    return _one(session, run_id, Desired.CANCEL)


def pause(session: Session, run_id: UUID) -> Run:
    """Halts a run at a step boundary, after a checkpoint; it keeps its place until it is resumed.

    Raises:
        NotFound: there is no such run.
        Conflict: it has ended, or is being cancelled.
    """
    return _one(session, run_id, Desired.PAUSE)


def resume(session: Session, run_id: UUID) -> Run:
    """Lets a paused run go on from its newest checkpoint; one that is still stopping goes on as soon as it has stopped.

    Raises:
        NotFound: there is no such run.
        Conflict: it has ended, or is being cancelled.
    """
    return _one(session, run_id, Desired.RUN)


def retry(session: Session, run_id: UUID) -> Run:
    """Ends a run's back-off now. A run that has ended is never tried again: clone its job.

    Raises:
        NotFound: there is no such run.
        Conflict: it is not waiting for its next attempt.
    """
    row = _locked(session, Run.id == run_id)
    if not row:
        raise NotFound("run", encode_id("run", run_id))
    if row[0].state not in {RunState.RETRY_WAIT, RunState.QUEUED}:
        raise _conflict(row[0], "retried")
    settle(session, _hurry(session, row[0]))
    return session.get_one(Run, run_id, populate_existing=True)


def cancel_job(session: Session, job_id: UUID) -> Job:
    """Cancels every run of a job that has not ended. Conflict where all ended, unless some are cancelled."""
    return _job(session, job_id, Desired.CANCEL)


def pause_job(session: Session, job_id: UUID) -> Job:
    """Pauses every run of a job that has not ended. Conflict where there is none."""
    return _job(session, job_id, Desired.PAUSE)


def resume_job(session: Session, job_id: UUID) -> Job:
    """Resumes every paused run of a job. Conflict where all have ended or are being cancelled."""
    return _job(session, job_id, Desired.RUN)


def retry_job(session: Session, job_id: UUID) -> Job:
    """Ends the back-off of every run of a job. Conflict where none waits for its next attempt."""
    _get_job(session, job_id)
    rows = _locked(session, Run.job_id == job_id)
    if not any(row.state in {RunState.RETRY_WAIT, RunState.QUEUED} for row in rows):
        raise Conflict("invalid_state", "no run of the job waits for its next attempt", _status(session, job_id))
    settle(session, [told for row in rows for told in _hurry(session, row)])
    return session.get_one(Job, job_id, populate_existing=True)


def cancel_experiment(session: Session, experiment_id: UUID) -> Experiment:
    """Cancels every run of an experiment that has not ended. Conflict where all ended, unless some are cancelled."""
    return _experiment(session, experiment_id, Desired.CANCEL)


def pause_experiment(session: Session, experiment_id: UUID) -> Experiment:
    """Pauses every run of an experiment that has not ended. Conflict where there is none."""
    return _experiment(session, experiment_id, Desired.PAUSE)


def resume_experiment(session: Session, experiment_id: UUID) -> Experiment:
    """Resumes every paused run of an experiment. Conflict where all have ended or are being cancelled."""
    return _experiment(session, experiment_id, Desired.RUN)


_DONE = {Desired.CANCEL: "cancelled", Desired.PAUSE: "paused", Desired.RUN: "resumed"}

_LockedRun = Row[UUID, UUID, int, int, str, str, int, bool, str]
"""id, job_id, seed, attempt, state, desired, blocked_on, is_held, stop_reason."""


def _one(session: Session, run_id: UUID, desired: Desired) -> Run:
    rows = _locked(session, Run.id == run_id)
    if not rows:
        raise NotFound("run", encode_id("run", run_id))
    if not _is_allowed(rows[0], desired):
        raise _conflict(rows[0], _DONE[desired])
    settle(session, _apply(session, rows[0], desired))
    return session.get_one(Run, run_id, populate_existing=True)


def _job(session: Session, job_id: UUID, desired: Desired) -> Job:
    _get_job(session, job_id)
    if not _many(session, Run.job_id == job_id, desired):
        raise Conflict("invalid_state", f"no run of the job can be {_DONE[desired]}", _status(session, job_id))
    return session.get_one(Job, job_id, populate_existing=True)


def _experiment(session: Session, experiment_id: UUID, desired: Desired) -> Experiment:
    experiment = session.get(Experiment, experiment_id)
    if experiment is None:
        raise NotFound("experiment", encode_id("exp", experiment_id))
    jobs = select(Job.id).where(Job.experiment_id == experiment_id)
    if not _many(session, Run.job_id.in_(jobs), desired):
        raise Conflict("invalid_state", f"no run of the experiment can be {_DONE[desired]}")
    return experiment


def _many(session: Session, which: ColumnElement[bool], desired: Desired) -> bool:
    """Applies a wish to those of several runs that can take it; False where none can."""
    rows = [row for row in _locked(session, which) if _is_allowed(row, desired)]
    happenings = []
    for row in rows:
        happenings += _apply(session, row, desired)
    settle(session, happenings)
    return bool(rows)


def _locked(session: Session, which: ColumnElement[bool]) -> list[_LockedRun]:
    query = select(
        Run.id,
        Run.job_id,
        Run.seed,
        Run.attempt,
        Run.state,
        Run.desired,
        Run.blocked_on,
        Run.is_held,
        Run.stop_reason,
    )
    return list(session.execute(query.where(which).order_by(Run.id).with_for_update()).all())


def _is_allowed(row: _LockedRun, desired: Desired) -> bool:
    if row.state in TERMINAL:
        return desired is Desired.CANCEL and row.state == RunState.CANCELLED
    if desired is Desired.RUN and (row.is_held or row.stop_reason):
        return False
    return desired is Desired.CANCEL or row.desired != Desired.CANCEL


def _apply(session: Session, row: _LockedRun, desired: Desired) -> list[Happening]:
    """Carries out a wish for one run, and what follows for those that wait for it."""
    current = session.execute(select(Run.state).where(Run.id == row.id)).scalar_one()
    if current in TERMINAL or row.desired == desired:  # ended by the cancel of one it waits for, or nothing new
        return []
    decision: Decision = decide(RunState(row.state), desired, is_blocked=row.blocked_on > 0)
    moment = database_time(session)
    values: dict[str, Any] = {
        "state": decision.state,
        "desired": desired,
        "status_reason": decision.reason,
        "version": Run.version + 1,
    }
    if decision.state is RunState.QUEUED and row.state != RunState.QUEUED:
        values |= requeue_values(session)
    if decision.state in TERMINAL:
        values["finished_at"] = moment
    session.execute(update(Run).where(Run.id == row.id).values(**values))
    happenings = [state_event(row.id, row.job_id, row.seed, row.attempt, decision.state, decision.reason)]
    if decision.state in TERMINAL:
        happenings += after_end(session, row.id, decision.state, moment)
    return happenings


def _hurry(session: Session, row: _LockedRun) -> list[Happening]:
    if row.state != RunState.RETRY_WAIT:
        return []
    reason = "tried again on request"
    values = requeue_values(session)
    session.execute(
        update(Run)
        .where(Run.id == row.id)
        .values(state=RunState.QUEUED, status_reason=reason, version=Run.version + 1, **values)
    )
    return [state_event(row.id, row.job_id, row.seed, row.attempt, RunState.QUEUED, reason)]


def _conflict(row: _LockedRun, done: str) -> Conflict:
    why = f": {row.stop_reason}" if row.stop_reason else ": it waits for its search" if row.is_held else ""
    return Conflict("invalid_state", f"a run that is {row.state} cannot be {done}{why}", row.state)


def _get_job(session: Session, job_id: UUID) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("job", encode_id("job", job_id))
    return job


def _status(session: Session, job_id: UUID) -> str:
    return session.scalars(select(Job.status).where(Job.id == job_id)).one()
