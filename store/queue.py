"""SQL is the queue: claim a run, guard every write of its worker, finish it.

Reaping is in `reaper.py`, ringing in `doorbell.py`. Every function works in the caller's transaction
(`with database.write() as session`). A worker's writes begin with the guard, which takes the row's lock, is
the heartbeat, and answers what a person wants.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.database import database_time, now_expression
from store.effects import Happening, settle, state_event, touch_job
from store.endings import Ending, end_attempt, write_rows
from store.errors import NotYours
from store.ids import new_id
from store.models.job import Job
from store.models.record import Checkpoint, LogChunk, Metric, Rollout
from store.models.run import Attempt, Run
from store.rows import CheckpointRow, Collected, RolloutRow
from store.software import software
from store.states import LIVE, Decision, Desired, Outcome, RunState
from store.text import clean_json, clean_text, finite_or_none

_WINDOW = 50
_MAX_KEY_CHARACTERS = 128


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
    """Takes the first run that this worker can serve: highest priority, longest available; None where there is none.

    Args:
        labels: what the worker offers; a run's labels must all be among them.
        free_gpus: indices of its GPUs that no run holds; the claim takes as many as the run needs.
        dispatcher: `local` or `celery`.
    """
    offered = set(labels)
    is_claimable = (
        Run.state == RunState.QUEUED,
        Run.desired == Desired.RUN,
        Run.queue.in_(queues),
        Run.num_gpus <= len(free_gpus),
        Run.available_at <= now_expression(session),
    )
    order = (Run.priority.desc(), Run.available_at, Run.id)
    offset = 0
    while True:
        window = select(Run.id, Run.labels).where(*is_claimable).order_by(*order).limit(_WINDOW).offset(offset)
        candidates = session.execute(window).all()
        for candidate in candidates:
            if offered.issuperset(candidate.labels):
                taken = _take(session, candidate.id, worker_id, list(free_gpus), dispatcher, host)
                if taken is not None:
                    return taken
        if len(candidates) < _WINDOW:
            return None
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
            Run.project_id, Run.job_id, Run.attempt, Run.kind, Run.seed, Run.num_gpus, Run.traceparent, Run.available_at
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
        traceparent=row.traceparent,
        waited_seconds=waited_seconds,
    )


def guard(session: Session, claim: Claim) -> Desired:
    """The heartbeat of an attempt and what a person wants of its run. First statement of a worker's transaction.

    Raises:
        NotYours: the attempt is over, or its run is another worker's.
    """
    beat = (
        update(Run)
        .where(
            Run.id == claim.run_id,
            Run.attempt == claim.attempt,
            Run.worker_id == claim.worker_id,
            Run.state.in_(LIVE),
        )
        .values(hb_seq=Run.hb_seq + 1, hb_at=now_expression(session))
        .returning(Run.desired)
        .execution_options(synchronize_session=False)
    )
    answer = session.execute(beat).scalar_one_or_none()
    if answer is None:
        raise NotYours(f"attempt {claim.attempt} of run {claim.run_id} is not this worker's any more")
    desired = Desired(answer)
    session.info["guarded"] = (session.get_transaction(), claim.run_id, claim.attempt, claim.worker_id, desired)
    return desired


def _guarded(session: Session, claim: Claim) -> Desired:
    """The guard, unless this transaction has passed it for this attempt already."""
    passed = session.info.get("guarded")
    if passed is not None and passed[:4] == (
        session.get_transaction(),
        claim.run_id,
        claim.attempt,
        claim.worker_id,
    ):
        desired: Desired = passed[4]
        return desired
    return guard(session, claim)


def start(session: Session, claim: Claim, pid: int) -> Desired:
    """Records the run's process; a leased run is running from now on."""
    desired = _guarded(session, claim)
    session.execute(update(Attempt).where(Attempt.run_id == claim.run_id, Attempt.n == claim.attempt).values(pid=pid))
    moment = now_expression(session)
    run = (
        update(Run)
        .where(Run.id == claim.run_id, Run.state == RunState.LEASED)
        .values(state=RunState.RUNNING, started_at=moment, version=Run.version + 1)
        .returning(Run.id)
    )
    if session.execute(run).scalar_one_or_none() is not None:
        settle(session, [state_event(claim.run_id, claim.job_id, claim.seed, claim.attempt, RunState.RUNNING, "")])
    return desired


def report_progress(session: Session, claim: Claim, step: int, total: int, message: str = "") -> Desired:
    """Says how far the attempt is."""
    desired = _guarded(session, claim)
    session.execute(
        update(Run)
        .where(Run.id == claim.run_id)
        .values(
            progress_step=step,
            progress_total=total,
            progress_message=clean_text(message, 500),
            progress_at=now_expression(session),
            version=Run.version + 1,
        )
    )
    touch_job(session, claim.job_id)
    return desired


def append_metrics(session: Session, claim: Claim, rows: Iterable[tuple[int, Mapping[str, float | None]]]) -> Desired:
    """Writes metrics, (step, {key: value}) each; a step written before is overwritten. Not finite becomes null."""
    desired = _guarded(session, claim)
    values: dict[tuple[str, int], float | None] = {}
    latest: dict[str, float | None] = {}
    for step, metrics in rows:
        for key, value in metrics.items():
            name = clean_text(key, _MAX_KEY_CHARACTERS)
            values[name, step] = latest[name] = finite_or_none(value)
    if not values:
        return desired
    statement = _upsert(session, Metric, ["run_id", "key", "step"], ["value", "attempt"])
    session.execute(
        statement,
        [
            {"run_id": claim.run_id, "key": key, "step": step, "value": value, "attempt": claim.attempt}
            for (key, step), value in values.items()
        ],
    )
    before = session.execute(select(Run.latest_metrics).where(Run.id == claim.run_id)).scalar_one()
    session.execute(
        update(Run).where(Run.id == claim.run_id).values(latest_metrics={**before, **latest}, version=Run.version + 1)
    )
    touch_job(session, claim.job_id)
    return desired


def append_rollouts(session: Session, claim: Claim, rows: Iterable[RolloutRow]) -> Desired:
    """Writes rollouts that a run keeps; one that an earlier attempt wrote is overwritten."""
    desired = _guarded(session, claim)
    own = {"run_id": claim.run_id, "attempt": claim.attempt}
    values = [clean_json(asdict(row)) | own for row in rows]
    if values:
        for value in values:
            value["prompt_id"] = value["prompt_id"][:_MAX_KEY_CHARACTERS]
        key = ["run_id", "iteration", "position"]
        changed = [name for name in values[0] if name not in key]
        session.execute(_upsert(session, Rollout, key, changed), values)
    return desired


def append_log(session: Session, claim: Claim, chunk: int, text: str) -> Desired:
    """Writes a piece of the attempt's output. `chunk` counts from 0 in the worker: a repeated write changes nothing."""
    desired = _guarded(session, claim)
    session.execute(
        _upsert(session, LogChunk, ["run_id", "attempt", "chunk"], []),
        {
            "run_id": claim.run_id,
            "attempt": claim.attempt,
            "chunk": chunk,
            "text": clean_text(text),
        },
    )
    return desired


def record_checkpoint(session: Session, claim: Claim, row: CheckpointRow) -> Desired:
    """Records a verified checkpoint of the attempt; one that is recorded already changes nothing."""
    desired = _guarded(session, claim)
    values = {
        "id": new_id(),
        "project_id": claim.project_id,
        "run_id": claim.run_id,
        "attempt": claim.attempt,
        "kind": row.kind,
        "step": row.step,
        "path": row.path,
        "manifest_sha256": row.manifest_sha256,
        "size_bytes": row.size_bytes,
    }
    statement = _upsert(session, Checkpoint, ["run_id", "attempt", "kind", "step"], [], values)
    if session.execute(statement.returning(Checkpoint.id)).scalar_one_or_none() is not None:
        add = Happening(
            job_id=claim.job_id,
            run_id=claim.run_id,
            attempt=claim.attempt,
            type="run.checkpoint",
            message=f"seed {claim.seed} has a checkpoint at step {row.step}",
            data={"step": row.step, "kind": row.kind, "seed": claim.seed},
        )
        settle(session, [add])
    return desired


def add_event(
    session: Session, claim: Claim, message: str, level: str = "info", data: Mapping[str, Any] | None = None
) -> Desired:
    """Adds a message of the attempt to the job's events. `level` is `info`, `warning` or `error`."""
    desired = _guarded(session, claim)
    event = Happening(
        job_id=claim.job_id,
        run_id=claim.run_id,
        attempt=claim.attempt,
        type="run.message",
        level=clean_text(level, 128),
        message=clean_text(message, 4000),
        data={"seed": claim.seed, **(data or {})},
    )
    settle(session, [event])
    return desired


def finish(
    session: Session,
    claim: Claim,
    outcome: Outcome,
    exit_code: int | None = None,
    message: str = "",
    collected: Collected | None = None,
    resumed_from_step: int | None = None,
    *,
    error_code: str = "",
    max_infra_failures: int = 5,
) -> Decision:
    """Ends the attempt: its rows, the run's next state, its dependents and the events are one transaction.

    Args:
        outcome: how the process ended.
        message: what went wrong; empty where nothing did.
        collected: what a run that succeeded leaves; unread where it does not end as succeeded.
        error_code: for programs: `bad_config`.
        max_infra_failures: `settings.max_infra_failures`.

    Raises:
        NotYours: the attempt is over already, also where an earlier call of this function was committed unnoticed.
    """
    guard(session, claim)
    decision, happenings = end_attempt(
        session,
        claim.run_id,
        claim.attempt,
        Ending(
            outcome=outcome,
            exit_code=exit_code,
            message=message,
            error_code=error_code,
            resumed_from_step=resumed_from_step,
        ),
        max_infra_failures,
    )
    if decision.state is RunState.SUCCEEDED and collected is not None:
        write_rows(
            session,
            collected,
            project_id=claim.project_id,
            run_id=claim.run_id,
            attempt=claim.attempt,
            job_id=claim.job_id,
            experiment_id=claim.experiment_id,
            method=claim.method,
            seed=claim.seed,
            spec=claim.spec,
        )
    settle(session, happenings)
    return decision


def _upsert(
    session: Session, table: Any, key: list[str], changed: list[str], values: Mapping[str, Any] | None = None
) -> Any:
    """INSERT that overwrites `changed` of an existing row, or leaves it alone; both dialects have the same words."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    if values is not None:
        statement = statement.values(**values)
    if not changed:
        return statement.on_conflict_do_nothing(index_elements=key)
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in changed}
    )
