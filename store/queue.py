"""SQL is the queue: guard every write of a run's worker, finish the run.

Claiming is in `claims.py`, reaping in `reaper.py`, ringing in `doorbell.py`. Every function works in the caller's
transaction (`with database.write() as session`). A worker's writes begin with the guard, which takes the row's lock, is
the heartbeat, and answers what a person wants.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.claims import Claim
from store.database import now_expression
from store.effects import Happening, settle, state_event, touch_job
from store.endings import Ending, end_attempt, write_rows
from store.errors import NotYours
from store.ids import new_id
from store.models.record import Checkpoint, LogChunk, Metric, Rollout
from store.models.run import Attempt, Run
from store.quotas import record_spending
from store.rows import CheckpointRow, Collected, RolloutRow
from store.states import LIVE, Decision, Desired, Outcome, RunState
from store.text import clean_json, clean_text, finite_or_none
from store.upserts import upsert

_MAX_KEY_CHARACTERS = 128


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
    statement = upsert(session, Metric, ["run_id", "key", "step"], ["value", "attempt"])
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


def report_spending(session: Session, claim: Claim, usd: float) -> Desired:
    """Says what the servers that the run asks have cost in all so far; what is new is put down to this month."""
    desired = _guarded(session, claim)
    record_spending(session, claim.project_id, claim.run_id, usd)
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
        session.execute(upsert(session, Rollout, key, changed), values)
    return desired


def append_log(session: Session, claim: Claim, chunk: int, text: str) -> Desired:
    """Writes a piece of the attempt's output. `chunk` counts from 0 in the worker: a repeated write changes nothing."""
    desired = _guarded(session, claim)
    session.execute(
        upsert(session, LogChunk, ["run_id", "attempt", "chunk"], []),
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
    statement = upsert(session, Checkpoint, ["run_id", "attempt", "kind", "step"], [], values)
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
