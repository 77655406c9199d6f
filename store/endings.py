"""How an attempt ends: the decision, the closed attempt, the run's new state, and the rows of one that succeeded."""

import itertools
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from store.database import database_time
from store.effects import Happening, after_end, state_event
from store.ids import new_id
from store.models.record import Checkpoint, Completion, Configuration, Result
from store.models.registry import Model
from store.models.run import Attempt, Run
from store.rows import Collected
from store.sources import evaluated_checkpoint, spec_of
from store.states import TERMINAL, Budgets, Decision, Desired, Outcome, RunState, decide
from store.text import clean_json, clean_text, finite_or_none
from store.upserts import insert_into

BUDGET_EXCEEDED = "budget_exceeded"
"""Error code of a run that ended because its budget was spent."""
_MAX_MESSAGE_CHARACTERS = 4000
_BATCH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process ended."""

    outcome: Outcome
    exit_code: int | None = None
    message: str = ""
    error_code: str = ""
    resumed_from_step: int | None = None


def end_attempt(
    session: Session, run_id: UUID, attempt: int, ending: Ending, max_infra_failures: int
) -> tuple[Decision, list[Happening]]:
    """Closes the open attempt of a live run and moves the run to the state that `decide` says.

    The caller holds the run's row lock, and passes the happenings to `settle` after its other writes.
    """
    moment = database_time(session)
    message = clean_text(ending.message, _MAX_MESSAGE_CHARACTERS)
    run = session.execute(
        select(
            Run.job_id, Run.seed, Run.state, Run.desired, Run.infra_failures, Run.progress_step, Run.stop_reason
        ).where(Run.id == run_id)
    ).one()
    same_failures, oom_failures = _earlier_failures(session, run_id, attempt, message, run.progress_step)
    budgets = Budgets(
        max_infra_failures=max_infra_failures,
        infra_failures=run.infra_failures,
        same_failures=same_failures,
        oom_failures=oom_failures,
    )
    decision = decide(RunState(run.state), Desired(run.desired), ending.outcome, budgets, stop_reason=run.stop_reason)
    is_over_budget = decision.state is RunState.FAILED and decision.reason == run.stop_reason
    session.execute(
        update(Attempt)
        .where(Attempt.run_id == run_id, Attempt.n == attempt)
        .values(
            outcome=ending.outcome,
            exit_code=ending.exit_code,
            error_message=message,
            resumed_from_step=ending.resumed_from_step,
            last_step=run.progress_step,
            ended_at=moment,
        )
    )
    values: dict[str, Any] = {
        "state": decision.state,
        "status_reason": decision.reason,
        "worker_id": None,
        "version": Run.version + 1,
        "error_code": "",
        "error_message": "",
    }
    if decision.state is RunState.PAUSED:  # also by itself: only a person's resume lets it go on
        values["desired"] = Desired.PAUSE
        values["is_held"] = ending.outcome is Outcome.BOUNDARY
    if decision.is_infra_failure:
        values["infra_failures"] = Run.infra_failures + 1
    if decision.state in {RunState.FAILED, RunState.QUARANTINED, RunState.RETRY_WAIT}:
        values["error_code"] = clean_text(ending.error_code, 128) or str(ending.outcome)
        values["error_message"] = message
    if is_over_budget:
        values["error_code"], values["error_message"] = BUDGET_EXCEEDED, decision.reason
    if decision.state in {RunState.QUEUED, RunState.RETRY_WAIT}:
        values["available_at"] = moment + timedelta(seconds=decision.delay_seconds)
        values["hint_at"] = None
    if decision.state is RunState.QUEUED:
        values["queued_at"] = moment
    if decision.state in TERMINAL:
        values["finished_at"] = moment
    if decision.state is RunState.SUCCEEDED:
        values["output_attempt"] = attempt
    session.execute(update(Run).where(Run.id == run_id).values(**values))
    told = ": ".join(part for part in (decision.reason, message) if part)
    happenings = [state_event(run_id, run.job_id, run.seed, attempt, decision.state, told)]
    if decision.state in TERMINAL:
        happenings += after_end(session, run_id, decision.state, moment)
    return decision, happenings


def _earlier_failures(session: Session, run_id: UUID, attempt: int, message: str, step: int) -> tuple[int, int]:
    """How many attempts just before this one failed alike and without progress, and how many ever ran out of memory."""
    earlier = (
        select(Attempt.outcome, Attempt.error_message, Attempt.last_step)
        .where(Attempt.run_id == run_id, Attempt.n < attempt)
        .order_by(Attempt.n.desc())
    )
    rows = session.execute(earlier).all()
    same = 0
    for row in rows:
        if row.outcome != Outcome.INFRA or row.error_message != message or step > row.last_step:
            break
        same += 1
        step = row.last_step
    return same, sum(row.outcome == Outcome.OOM for row in rows)


def write_rows(
    session: Session,
    collected: Collected,
    *,
    project_id: UUID,
    run_id: UUID,
    attempt: int,
    job_id: UUID,
    experiment_id: UUID | None,
    method: str,
    seed: int,
    spec: dict[str, Any],
) -> None:
    """Inserts results, completions and models of a run; completions are read and written in batches."""
    moment = database_time(session)
    model_id = session.scalar(select(Model.id).where(Model.job_id == job_id)) if collected.models else None
    models = [
        {
            "id": new_id(),
            "project_id": project_id,
            "run_id": run_id,
            "model_id": model_id,
            "attempt": attempt,
            "kind": row.kind,
            "step": row.step,
            "path": row.path,
            "manifest_sha256": row.manifest_sha256,
            "size_bytes": row.size_bytes,
            "created_at": moment,
        }
        for row in collected.models
    ]
    if models:
        session.execute(insert(Checkpoint), models)
    if collected.configurations:
        known = [
            {"hash": name, "document": clean_json(document), "created_at": moment}
            for name, document in sorted(collected.configurations.items())
        ]
        session.execute(insert_into(session, Configuration).on_conflict_do_nothing(), known)
    results = list(collected.results)
    if results:
        checkpoint_id = evaluated_checkpoint(session, spec_of(spec), seed, experiment_id)
        session.execute(
            insert(Result),
            [
                {
                    "id": new_id(),
                    "project_id": project_id,
                    "run_id": run_id,
                    "job_id": job_id,
                    "experiment_id": experiment_id,
                    "checkpoint_id": checkpoint_id,
                    "method": method,
                    "benchmark": row.benchmark,
                    "metric": row.metric,
                    "decoding": row.decoding,
                    "train_seed": seed,
                    "eval_seed": row.eval_seed,
                    "value": finite_or_none(row.value),
                    "num_examples": row.num_examples,
                    "num_unscored": row.num_unscored,
                    "stderr_over_examples": finite_or_none(row.stderr_over_examples),
                    "configuration": row.configuration,
                    "created_at": moment,
                }
                for row in results
            ],
        )
    numbered = enumerate(collected.completions)
    while batch := list(itertools.islice(numbered, _BATCH)):
        session.execute(
            insert(Completion),
            [
                {
                    "run_id": run_id,
                    "position": position,
                    "benchmark": row.benchmark,
                    "example_id": clean_text(row.example_id, 128),
                    "decoding": row.decoding,
                    "train_seed": seed,
                    "eval_seed": row.eval_seed,
                    "prompt": clean_text(row.prompt),
                    "completion": clean_text(row.completion),
                    "reference": clean_text(row.reference),
                    "extracted": None if row.extracted is None else clean_text(row.extracted),
                    "verdict": row.verdict,
                    "correct": row.correct,
                    "truncated": row.truncated,
                    "sample_index": row.sample_index,
                    "value": finite_or_none(row.value),
                    "reason": None if row.reason is None else clean_text(row.reason),
                    "num_tokens": row.num_tokens,
                    "choice_logprobs": row.choice_logprobs,
                    "values": clean_json(row.values),
                    "details": clean_json(row.details),
                }
                for position, row in batch
            ],
        )
