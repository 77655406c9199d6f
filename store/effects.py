"""What follows from a run's change of state, in its transaction: dependents, events, the job's status, alerts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from store.database import database_time, now_expression
from store.ids import encode_id
from store.models.job import Experiment, Job
from store.models.record import Event
from store.models.run import Run, RunDependency
from store.notifications import publish
from store.states import TERMINAL, RunState, job_status


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something to be told in a job's events."""

    job_id: UUID
    type: str
    message: str
    run_id: UUID | None = None
    attempt: int | None = None
    level: str = "info"
    data: dict[str, Any] = field(default_factory=dict)


def state_event(run_id: UUID, job_id: UUID, seed: int, attempt: int, state: RunState, reason: str) -> Happening:
    """The event of a run's new state."""
    return Happening(
        job_id=job_id,
        run_id=run_id,
        attempt=attempt or None,
        type="run.state",
        level="error" if state in {RunState.FAILED, RunState.QUARANTINED} else "info",
        message=f"seed {seed} is {state.replace('_', ' ')}" + (f": {reason}" if reason else ""),
        data={"state": str(state), "reason": reason, "seed": seed},
    )


def settle(session: Session, happenings: Sequence[Happening], *, is_submitting: bool = False) -> None:
    """Writes events and brings the jobs concerned up to date; tells of those that have ended or do not go on.

    Called once a transaction, after all its writes to runs: locks are taken runs first, then jobs in the order of
    their ids, then experiments. Holding the row while its runs are read keeps the status right when two end at once.

    Args:
        is_submitting: more jobs of the experiment follow: it cannot have ended, whatever those so far took over.
    """
    ended = set()
    by_job: dict[UUID, list[Happening]] = defaultdict(list)
    for happening in happenings:
        by_job[happening.job_id].append(happening)
    for job_id in sorted(by_job):
        told = by_job[job_id]
        bump = update(Job).where(Job.id == job_id).values(version=Job.version + 1).returning(Job.status)
        before = session.execute(bump).scalar_one()
        status = job_status(session.scalars(select(Run.state).where(Run.job_id == job_id)))
        if status != before:
            experiment_id = announce_job(session, job_id, status)
            if experiment_id is not None and status in TERMINAL and not is_submitting:
                ended.add(experiment_id)
            news = Happening(job_id=job_id, type="job.state", message=f"the job is {status}", data={"status": status})
            told = [*told, news]
        take = (
            update(Job)
            .where(Job.id == job_id)
            .values(event_seq=Job.event_seq + len(told), status=status)
            .returning(Job.event_seq)
        )
        last = session.execute(take).scalar_one()
        moment = database_time(session)
        session.execute(
            insert(Event),
            [
                {
                    "job_id": job_id,
                    "seq": last - len(told) + position,
                    "run_id": happening.run_id,
                    "attempt": happening.attempt,
                    "type": happening.type,
                    "level": happening.level,
                    "message": happening.message,
                    "data": happening.data,
                    "created_at": moment,
                }
                for position, happening in enumerate(told, start=1)
            ],
        )
    for experiment_id in sorted(ended):
        announce_experiment(session, experiment_id)


def announce_job(session: Session, job_id: UUID, status: str) -> UUID | None:
    """Tells of a job that has come to an end, or does not go on by itself; the experiment that it belongs to."""
    job = session.execute(select(Job.name, Job.kind, Job.experiment_id, Job.project_id).where(Job.id == job_id)).one()
    experiment_id: UUID | None = job.experiment_id
    if status in TERMINAL or status == "paused":
        experiment = None if experiment_id is None else encode_id("exp", experiment_id)
        data = {"name": job.name, "kind": job.kind, "status": status, "experiment_id": experiment}
        publish(session, f"job.{status}", encode_id("job", job_id), data, job.project_id)
    return experiment_id


def announce_experiment(session: Session, experiment_id: UUID) -> None:
    """Tells of an experiment, if all its runs have ended: called when a job of it has, so that it is told once."""
    # No lock on the key: results that refer to the experiment are being written by others, which may come here, too.
    locked = select(Experiment.name, Experiment.project_id).where(Experiment.id == experiment_id)
    experiment = session.execute(locked.with_for_update(key_share=True)).one()
    rows = session.execute(
        select(Run.state, Run.is_passed_over).join(Job, Job.id == Run.job_id).where(Job.experiment_id == experiment_id)
    ).all()
    if {row.state for row in rows} <= TERMINAL:
        counted = [row.state for row in rows if not row.is_passed_over]
        status = job_status(counted or [row.state for row in rows])
        data = {"name": experiment.name, "status": status}
        publish(session, f"experiment.{status}", encode_id("exp", experiment_id), data, experiment.project_id)


def after_end(session: Session, run_id: UUID, state: RunState, moment: datetime) -> list[Happening]:
    """What a run's end does to those that wait for it: success unblocks them, any other end cancels them and theirs."""
    assert state in TERMINAL, state
    if state is RunState.SUCCEEDED:
        return _unblock(session, run_id, moment)
    return _cancel_dependents(session, run_id, state, moment)


def _unblock(session: Session, run_id: UUID, moment: datetime) -> list[Happening]:
    happenings = []
    waiting = select(RunDependency.run_id).where(RunDependency.needs_id == run_id).order_by(RunDependency.run_id)
    for dependent_id in session.scalars(waiting).all():
        # An atomic decrement: a count of unfinished dependencies would miss one that ends in a concurrent transaction.
        decrement = (
            update(Run)
            .where(Run.id == dependent_id, Run.state.not_in(TERMINAL), Run.blocked_on > 0)
            .values(blocked_on=Run.blocked_on - 1, version=Run.version + 1)
            .returning(Run.blocked_on, Run.state, Run.job_id, Run.seed, Run.attempt)
        )
        row = session.execute(decrement).one_or_none()
        if row is None or row.blocked_on or row.state != RunState.BLOCKED:
            continue
        session.execute(
            update(Run)
            .where(Run.id == dependent_id)
            .values(state=RunState.QUEUED, status_reason="", available_at=moment, queued_at=moment, hint_at=None)
        )
        reason = "its dependencies succeeded"
        happenings.append(state_event(dependent_id, row.job_id, row.seed, row.attempt, RunState.QUEUED, reason))
    return happenings


def _cancel_dependents(session: Session, run_id: UUID, state: RunState, moment: datetime) -> list[Happening]:
    happenings = []
    ended = [(run_id, state)]
    while ended:
        needs_id, needs_state = ended.pop(0)
        columns = (Job.name, Run.seed, Run.is_passed_over)
        named = select(*columns).join(Run, Run.job_id == Job.id).where(Run.id == needs_id)
        name, seed, is_passed_over = session.execute(named).one()
        reason = f"depends on {name} (seed {seed}, {encode_id('run', needs_id)}), which is {needs_state}"
        waiting = select(RunDependency.run_id).where(RunDependency.needs_id == needs_id).order_by(RunDependency.run_id)
        for dependent_id in session.scalars(waiting).all():
            cancel = (
                update(Run)
                .where(Run.id == dependent_id, Run.state.in_([RunState.BLOCKED, RunState.PAUSED]))
                .values(
                    state=RunState.CANCELLED,
                    status_reason=reason,
                    finished_at=moment,
                    is_passed_over=is_passed_over,
                    version=Run.version + 1,
                )
                .returning(Run.job_id, Run.seed, Run.attempt)
            )
            row = session.execute(cancel).one_or_none()
            if row is not None:
                event = state_event(dependent_id, row.job_id, row.seed, row.attempt, RunState.CANCELLED, reason)
                happenings.append(event)
                ended.append((dependent_id, RunState.CANCELLED))
    return happenings


def touch_job(session: Session, job_id: UUID) -> None:
    """A visible change of one of its runs that is no event: progress, metrics."""
    session.execute(update(Job).where(Job.id == job_id).values(version=Job.version + 1))


def requeue_values(session: Session) -> dict[str, Any]:
    """Columns of a run that becomes claimable now."""
    moment = now_expression(session)
    return {"available_at": moment, "queued_at": moment, "hint_at": None, "worker_id": None}
