"""Verdicts are decided: when their evaluations have ended, from the completions of both, once.

Safe to run twice, anywhere: the figures are made without a lock, and written by a compare-and-set of the state, in one
transaction with what follows from it (a promotion, a notification).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from evaluation.types import Completion as TypedCompletion
from store.database import Database, database_time
from store.errors import Invalid
from store.gates import GateFigures, Measured, Whole, decide
from store.ids import encode_id
from store.models.dataset import Alias
from store.models.job import Job
from store.models.record import Checkpoint, Completion, Result
from store.models.run import Run
from store.models.suite import OPEN, Verdict
from store.regression import ENDED_BADLY, is_of_use, tell_verdict
from store.repositories.aliases import Aliases
from store.repositories.suites import Suites, Verdicts
from store.suite_specs import Plan, WholeGate, whole_gates


@dataclass(frozen=True, slots=True)
class Waiting:
    """An open verdict whose evaluations have got somewhere."""

    verdict_id: UUID
    project_id: UUID
    state: str
    statuses: tuple[str, str]
    """Of the checkpoint's evaluation and of the baseline's."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is waited for any more."""
        return set(self.statuses) == {"succeeded"} or any(status in ENDED_BADLY for status in self.statuses)


def waiting(session: Session) -> list[Waiting]:
    """The open verdicts of which something is to be told now, oldest first."""
    own, base = aliased(Job), aliased(Job)
    query = (
        select(Verdict.id, Verdict.project_id, Verdict.state, own.status, base.status)
        .join(own, own.id == Verdict.job_id)
        .join(base, base.id == Verdict.baseline_job_id)
        .where(Verdict.state.in_(OPEN))
        .order_by(Verdict.id)
    )
    found = [Waiting(row[0], row[1], row[2], (row[3], row[4])) for row in session.execute(query)]
    return [one for one in found if one.is_over or (one.state == "pending" and set(one.statuses) != {"queued"})]


def advance(database: Database) -> list[UUID]:
    """Takes every open verdict as far as its evaluations allow; the ids of those that this call decided."""
    with database.read() as session:
        found = waiting(session)
    decided = []
    for one in found:
        if not one.is_over:
            with database.write() as session:
                _turn(session, one.verdict_id, {"state": "running"}, ("pending",))
        elif conclude(database.confined(one.project_id), one.verdict_id):
            decided.append(one.verdict_id)
    return decided


def conclude(database: Database, verdict_id: UUID) -> bool:
    """Decides a verdict whose evaluations are over; whether this call did.

    Args:
        database: confined to the verdict's project.
    """
    with database.read() as session:
        verdict = Verdicts(session).get(verdict_id)
        try:
            plan = Suites(session).plan(verdict.suite_id, verdict.version)
            values = _judgement(session, verdict, plan)
        except ValueError as error:  # a plan of another time, or figures that cannot be: the other verdicts go on
            values = {"state": "error", "reason": f"it cannot be judged: {error}"[:2000]}
    with database.write() as session:
        values["decided_at"] = database_time(session)
        if not _turn(session, verdict_id, values, OPEN):
            return False  # another reconciler was faster
        decided = Verdicts(session).get(verdict_id)
        session.refresh(decided)
        if decided.state == "decided":
            _promote(session, decided, plan)
        tell_verdict(session, decided)
    return True


def _turn(session: Session, verdict_id: UUID, values: Mapping[str, Any], before: Iterable[str]) -> bool:
    """Moves a verdict on from some states; whether it was in one of them."""
    move = update(Verdict).where(Verdict.id == verdict_id, Verdict.state.in_(list(before))).values(**values)
    return session.execute(move.returning(Verdict.id)).one_or_none() is not None


def _judgement(session: Session, verdict: Verdict, plan: Plan) -> dict[str, Any]:
    """State, outcome, reason and figures of a verdict."""
    assert verdict.job_id is not None and verdict.baseline_job_id is not None
    for what, job_id in (("checkpoint's", verdict.job_id), ("baseline's", verdict.baseline_job_id)):
        if (failure := _failure(session, job_id)) is not None:
            return {"state": "error", "reason": f"the {what} evaluation {failure}"[:2000]}
        if not is_of_use(session, job_id):
            return {"state": "error", "reason": f"the completions of the {what} evaluation were deleted by age"}
    own, base = _run_of(session, verdict.job_id), _run_of(session, verdict.baseline_job_id)
    gates = list(whole_gates(plan))
    try:
        measured = [_measured(session, gate, plan, own, base) for gate in gates]
    except ValueError as error:
        return {"state": "error", "reason": str(error)[:2000]}
    outcome, figures = decide(measured, plan.level, plan.max_left_out)
    told = [
        f"{gate.benchmark} {gate.metric} {gate.decoding}: {figure.reason}"
        for gate, figure in zip(gates, figures, strict=True)
        if figure.outcome == outcome
    ]
    return {
        "state": "decided",
        "outcome": outcome,
        "reason": "; ".join(told)[:2000],
        "figures": [figures_document(gate, figure) for gate, figure in zip(gates, figures, strict=True)],
    }


def _failure(session: Session, job_id: UUID) -> str | None:
    """How an evaluation failed; None where it did not."""
    query = (
        select(Job.status, Run.error_message, Run.status_reason, Run.id)
        .join(Run, Run.job_id == Job.id)
        .where(Job.id == job_id)
    )
    row = session.execute(query).first()
    if row is None or row.status not in ENDED_BADLY:
        return None
    message = row.error_message or row.status_reason
    return f"{row.status} ({encode_id('run', row.id)})" + (f": {message}" if message else "")


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """The one run of an evaluation job."""

    id: UUID
    owner: UUID
    """The run that has the completions: itself, or the one that it took them over from."""


def _run_of(session: Session, job_id: UUID) -> EvaluationRun:
    row = session.execute(select(Run.id, Run.reused_run_id).where(Run.job_id == job_id)).one()
    return EvaluationRun(row.id, row.reused_run_id or row.id)


def _measured(
    session: Session, gate: WholeGate, plan: Plan, own: EvaluationRun, base: EvaluationRun
) -> Measured | Whole:
    """What a gate looks at.

    Raises:
        ValueError: both did not measure the same.
    """
    _check_configuration(session, gate, own, base)
    if not gate.is_paired:
        assert gate.min_value is not None
        value, stderr, num_examples = whole_value(session, gate, own)
        baseline_value, baseline_stderr, _ = whole_value(session, gate, base)
        return Whole(
            min_value=gate.min_value,
            value=value,
            stderr=stderr,
            num_examples=num_examples,
            baseline_value=baseline_value,
            baseline_stderr=baseline_stderr,
        )
    values, examples = example_values(session, gate, plan, own.owner)
    baseline, baseline_examples = example_values(session, gate, plan, base.owner)
    return Measured(
        min_value=gate.min_value,
        max_drop=gate.max_drop,
        values=values,
        baseline=baseline,
        num_examples=len(examples | baseline_examples),
        width={"fraction": 1.0, "percent": 100.0}.get(gate.unit),
        is_baseline=own.owner == base.owner,
    )


def _check_configuration(session: Session, gate: WholeGate, own: EvaluationRun, base: EvaluationRun) -> None:
    def of(run: EvaluationRun) -> set[str]:
        query = select(Result.configuration).where(
            Result.run_id == run.id, Result.benchmark == gate.benchmark, Result.decoding == gate.decoding
        )
        return set(session.scalars(query))

    first, second = of(own), of(base)
    if not first or not second:
        raise ValueError(f"{gate.benchmark} {gate.decoding}: an evaluation left no result of it")
    if first != second:
        raise ValueError(
            f"{gate.benchmark} {gate.decoding}: the checkpoint and the baseline were not measured alike: the data or "
            f"the graders changed in between; change the suite, so that a new version evaluates both"
        )


def whole_value(session: Session, gate: WholeGate, run: EvaluationRun) -> tuple[float | None, float | None, int]:
    """A metric's mean over eval seeds, its standard error, and its examples.

    The error is the mean of those of the seeds: that of one seed, since all have the examples in common.
    """
    query = select(Result.value, Result.stderr_over_examples, Result.num_examples).where(
        Result.run_id == run.id,
        Result.benchmark == gate.benchmark,
        Result.metric == gate.metric,
        Result.decoding == gate.decoding,
    )
    rows = session.execute(query.order_by(Result.eval_seed)).all()
    values = [row.value for row in rows if row.value is not None]
    errors = [row.stderr_over_examples for row in rows if row.stderr_over_examples is not None]
    if not rows or len(values) < len(rows):
        return None, None, 0
    stderr = math.fsum(errors) / len(errors) if len(errors) == len(rows) else None
    return math.fsum(values) / len(values), stderr, rows[0].num_examples


def example_values(session: Session, gate: WholeGate, plan: Plan, run_id: UUID) -> tuple[dict[str, float], set[str]]:
    """Each example's value, over samples first and then over eval seeds, where it has one; and all examples.

    Args:
        run_id: the run that has the completions.
    """
    columns = (
        Completion.example_id,
        Completion.eval_seed,
        Completion.value,
        Completion.values,
        Completion.extracted,
    )
    query = (
        select(*columns)
        .where(
            Completion.run_id == run_id,
            Completion.benchmark == gate.benchmark,
            Completion.decoding == gate.decoding,
        )
        .order_by(Completion.position)
    )
    examples: set[str] = set()
    scored: dict[int | None, dict[str, list[tuple[float, str | None]]]] = defaultdict(lambda: defaultdict(list))
    for example, seed, value, values, extracted in session.execute(query):
        examples.add(example)
        number = values.get(gate.record) if gate.record else value
        if value is not None and number is not None:
            scored[seed][example].append((number, extracted))
    over_seeds: dict[str, list[float]] = defaultdict(list)
    for passed in scored.values():
        for example, one in _of_pass(gate, plan, passed).items():
            over_seeds[example].append(one)
    scale = 100.0 if gate.unit == "percent" else 1.0
    return {example: scale * math.fsum(some) / len(some) for example, some in over_seeds.items()}, examples


def _of_pass(gate: WholeGate, plan: Plan, passed: Mapping[str, list[tuple[float, str | None]]]) -> dict[str, float]:
    """Each example's value in the pass of one eval seed."""
    if not gate.is_sampled:
        return {example: math.fsum(value for value, _ in some) / len(some) for example, some in passed.items()}
    completions = [
        TypedCompletion(
            benchmark=gate.benchmark,
            example_id=example,
            decoding=gate.decoding,
            train_seed=0,
            eval_seed=None,
            sample_index=number,
            prompt="",
            completion="",
            reference="",
            extracted=extracted,
            verdict="scored",
            correct=None,
            value=value,
            truncated=False,
        )
        for example, some in passed.items()
        for number, (value, extracted) in enumerate(some)
    ]
    from evaluation.results import sampled_metrics  # here: it loads numpy, which a supervisor has no other use for

    return sampled_metrics(completions, plan.pass_at, plan.samples_per_example)[gate.metric]


def figures_document(gate: WholeGate, figure: GateFigures) -> dict[str, Any]:
    """A gate and its figures as they are kept."""
    asked = {
        "benchmark": gate.benchmark,
        "metric": gate.metric,
        "decoding": gate.decoding,
        "unit": gate.unit,
        "min_value": gate.min_value,
        "max_drop": gate.max_drop,
    }
    return {**asked, **asdict(figure)}


def _promote(session: Session, verdict: Verdict, plan: Plan) -> None:
    """Gives a good checkpoint the alias that the plan names, unless the alias has gone on without it.

    It is moved from what it meant when the verdict was asked for (where it is the baseline), and never to an older
    checkpoint: a verdict that comes late undoes nothing.
    """
    promotion = plan.promote
    good = ("improved",) if promotion is not None and promotion.on == "improved" else ("pass", "improved")
    if promotion is None or verdict.outcome not in good:
        return
    query = select(Alias).where(Alias.name == promotion.alias, Alias.project_id == verdict.project_id)
    alias = session.scalar(query.with_for_update().execution_options(populate_existing=True))
    note = ""
    if alias is not None and alias.checkpoint_id == verdict.checkpoint_id:
        note = "it has the name already"
    elif alias is not None and _is_older(session, verdict.checkpoint_id, alias.checkpoint_id):
        note = f"{encode_id('ckpt', alias.checkpoint_id)}, which has the name, is newer"
    elif (
        alias is not None and plan.baseline == f"alias:{promotion.alias}" and alias.checkpoint_id != verdict.baseline_id
    ):
        note = f"the name has gone on to {encode_id('ckpt', alias.checkpoint_id)}, with which it was not compared"
    else:
        try:
            Aliases(session).put(promotion.alias, verdict.checkpoint_id)
        except Invalid as error:
            note = error.message
    verdict.promotion_note = note
    verdict.promoted_alias = "" if note else promotion.alias
    session.flush()


def _is_older(session: Session, checkpoint_id: UUID, other_id: UUID) -> bool:
    """Whether a checkpoint was written before another one."""
    query = select(Checkpoint.id, Checkpoint.created_at).where(Checkpoint.id.in_([checkpoint_id, other_id]))
    at = {row.id: (row.created_at, row.id) for row in session.execute(query)}
    return at[checkpoint_id] < at[other_id]


def num_open(session: Session) -> int:
    """Verdicts that are not decided yet."""
    return session.scalar(select(func.count()).select_from(Verdict).where(Verdict.state.in_(OPEN))) or 0
