"""Claiming a run: which one is next is said in `store.shares`; here it is taken, by one worker alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from store.budgets import reason_not_to_start
from store.database import database_time, now_expression
from store.effects import settle, state_event
from store.models.job import Job
from store.models.run import Attempt, Run
from store.shares import Line, has_room
from store.software import software
from store.states import Desired, RunState
from store.text import clean_text

_WINDOW = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that a worker holds. `attempt` and `worker_id` are the fencing token of everything it writes."""

    run_id: UUID
    project_id: UUID
    job_id: UUID
    experiment_id: UUID | None
    attempt: int
    worker_id: UUID
    kind: str
    seed: int
    method: str
    """The name under which results are tabled."""
    job_name: str
    spec: dict[str, Any]
    """The `JobSpec` as JSON."""
    gpus: tuple[int, ...]
    """Indices of the GPUs that it takes from the worker."""
    earlier_attempts: tuple[int, ...]
    """Numbers of the attempts before this one, newest first: their directories may hold checkpoints."""
    pause_at_step: int | None = None
    """The step at which the run pauses by itself, as a trial of a search."""
    traceparent: str | None = None
    """Trace context of the request that submitted the run."""
    waited_seconds: float = 0.0
    """From when the run could be claimed to the claim."""


def claim(
    session: Session,
    *,
    worker_id: UUID,
    queues: Sequence[str],
    labels: Iterable[str],
    free_gpus: Sequence[int],
    dispatcher: str,
    host: str,
) -> Claim | None:
    """Takes the next run that this worker can serve, by the rule of `store.shares`; None where there is none.

    Args:
        labels: what the worker offers; a run's labels must all be among them.
        free_gpus: indices of its GPUs that no run holds; the claim takes as many as the run needs.
        dispatcher: `local` or `celery`.
    """
    offered = set(labels)
    line = Line(session, queues=queues, max_gpus=len(free_gpus))
    full: set[tuple[UUID, int]] = set()
    for run in _in_order(session, line, offered):
        share = (run.project_id, run.num_gpus)
        if share in full:
            continue
        if run.is_bound and not has_room(session, *share):
            full.add(share)  # another worker was faster, and took the last of the project's quota
            continue
        if reason_not_to_start(session, run.id):
            continue
        taken = _take(session, run.id, worker_id, list(free_gpus), dispatcher, host)
        if taken is not None:
            return taken
    return None


def _in_order(session: Session, line: Line, offered: set[str]) -> Iterator[Any]:
    """Runs whose labels a worker offers: the heads of the line, then the whole line where one of them was no use."""
    heads = session.execute(line.heads()).all()
    for run in heads:
        if not offered.issuperset(run.labels):
            break
        yield run
    offset = 0
    while heads:
        candidates = session.execute(line.all().limit(_WINDOW).offset(offset)).all()
        yield from (run for run in candidates if offered.issuperset(run.labels))
        if len(candidates) < _WINDOW:
            return
        offset += _WINDOW


def _take(
    session: Session, run_id: UUID, worker_id: UUID, free_gpus: list[int], dispatcher: str, host: str
) -> Claim | None:
    """The claim of one run, or None where another worker was faster."""
    unlocked = (
        select(Run.id)
        .where(Run.id == run_id, Run.state == RunState.QUEUED, Run.desired == Desired.RUN)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    moment = now_expression(session)
    take = (
        update(Run)
        .where(Run.id == unlocked, Run.state == RunState.QUEUED)
        .values(
            state=RunState.LEASED,
            status_reason="",
            attempt=Run.attempt + 1,
            worker_id=worker_id,
            hb_seq=0,
            hb_at=moment,
            hint_at=None,
            version=Run.version + 1,
        )
        .returning(
            Run.project_id,
            Run.job_id,
            Run.attempt,
            Run.kind,
            Run.seed,
            Run.num_gpus,
            Run.pause_at_step,
            Run.traceparent,
            Run.available_at,
        )
    )
    row = session.execute(take).one_or_none()
    if row is None:
        return None
    gpus = tuple(free_gpus[: row.num_gpus])
    waited_seconds = max(0.0, (database_time(session) - row.available_at).total_seconds())
    earlier = select(Attempt.n).where(Attempt.run_id == run_id).order_by(Attempt.n.desc())
    earlier_attempts = tuple(session.scalars(earlier))
    session.execute(
        insert(Attempt).values(
            run_id=run_id,
            n=row.attempt,
            worker_id=worker_id,
            dispatcher=dispatcher,
            host=clean_text(host, 128),
            gpus=list(gpus),
            waited_seconds=waited_seconds,
            software=software(),
            started_at=moment,
        )
    )
    settle(session, [state_event(run_id, row.job_id, row.seed, row.attempt, RunState.LEASED, "")])
    job = session.execute(select(Job.experiment_id, Job.method, Job.name, Job.spec).where(Job.id == row.job_id)).one()
    return Claim(
        run_id=run_id,
        project_id=row.project_id,
        job_id=row.job_id,
        experiment_id=job.experiment_id,
        attempt=row.attempt,
        worker_id=worker_id,
        kind=row.kind,
        seed=row.seed,
        method=job.method,
        job_name=job.name,
        spec=job.spec,
        gpus=gpus,
        earlier_attempts=earlier_attempts,
        pause_at_step=row.pause_at_step,
        traceparent=row.traceparent,
        waited_seconds=waited_seconds,
    )
