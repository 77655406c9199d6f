"""What runs have spent, and what happens to those whose budget is spent.

A job's `budget` holds for each of its runs, an experiment's for all its runs together. Wall time is that of attempts,
open ones until now; waiting is not counted. Tokens are those that were generated plus those that were trained on, as
the metrics of `sft`, `dpo` and `train` and the completions of evaluations tell them. What judges cost is what their
results say; while one runs, its endpoint's `spending_cap` holds, which a budget lowers (`capped`).

A live run over its budget stops at its next checkpoint and fails with the code `budget_exceeded`; one that no worker
holds is cancelled. `enforce` is a compare-and-set: safe to run twice, anywhere.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from lco.config import Config
from store.database import database_time
from store.document_parts import Budget
from store.effects import Happening, after_end, settle, state_event
from store.endings import BUDGET_EXCEEDED
from store.endpoints import endpoints
from store.models.job import Experiment, Job
from store.models.record import Completion, Metric, Result
from store.models.run import Attempt, Run
from store.sources import spec_of
from store.specs import JobSpec, replaced
from store.states import LIVE, TERMINAL, Desired, RunState

TRAINED = "train/num_tokens"
GENERATED = "train/completion_tokens"
JUDGE_PRICE = "judge_price"


@dataclass(slots=True)
class Spent:
    """What something has used."""

    wall_seconds: float = 0.0
    """Of attempts, open ones until now."""
    tokens: float = 0.0
    """Generated plus trained on."""
    judge_usd: float = 0.0
    """What judges cost, in the currency of their `prices`."""

    def add(self, other: "Spent") -> None:
        """Adds another's."""
        self.wall_seconds += other.wall_seconds
        self.tokens += other.tokens
        self.judge_usd += other.judge_usd


def spent_by_runs(session: Session, run_ids: Iterable[UUID]) -> dict[UUID, Spent]:
    """What each of some runs has used; those that took over an output have used nothing."""
    wanted = list(run_ids)
    found: dict[UUID, Spent] = {run_id: Spent() for run_id in wanted}
    if not wanted:
        return found
    moment = database_time(session)
    attempts = select(Attempt.run_id, Attempt.started_at, Attempt.ended_at).where(Attempt.run_id.in_(wanted))
    for run_id, started_at, ended_at in session.execute(attempts):
        found[run_id].wall_seconds += max(0.0, ((ended_at or moment) - started_at).total_seconds())
    sums = (
        select(Metric.run_id, Metric.key, func.sum(Metric.value))
        .where(Metric.run_id.in_(wanted), Metric.key.in_([TRAINED, GENERATED]))
        .group_by(Metric.run_id, Metric.key)
    )
    generated = {}
    for run_id, key, total in session.execute(sums):
        if key == TRAINED:
            found[run_id].tokens += total or 0.0
        else:
            generated[run_id] = total or 0.0
    if generated:
        specs = select(Run.id, Job.spec).join(Job, Job.id == Run.job_id).where(Run.id.in_(generated))
        for run_id, spec in session.execute(specs):
            found[run_id].tokens += generated[run_id] * _completions(spec)
    completions = (
        select(Completion.run_id, func.sum(Completion.num_tokens))
        .where(Completion.run_id.in_(wanted))
        .group_by(Completion.run_id)
    )
    for run_id, total in session.execute(completions):
        found[run_id].tokens += total or 0
    prices = (
        select(Result.run_id, func.sum(Result.value))
        .join(Run, Run.id == Result.run_id)
        .where(Result.run_id.in_(wanted), Result.metric == JUDGE_PRICE, Run.reused_run_id.is_(None))
        .group_by(Result.run_id)
    )
    for run_id, total in session.execute(prices):
        found[run_id].judge_usd += total or 0.0
    return found


def _completions(spec: Mapping[str, Any]) -> int:
    """Completions of an iteration, of which the metric has the mean length."""
    config = spec["config"]
    return int(config.get("prompts_per_iteration", 1)) * int(config.get("group_size", 1))


def excess(budget: Budget, spent: Spent, whose: str) -> str:
    """What a budget is spent of, for a person; empty where something of everything is left."""
    for limit, used, what in (
        (budget.wall_seconds, spent.wall_seconds, "s of wall time"),
        (budget.tokens, spent.tokens, "tokens"),
        (budget.judge_usd, spent.judge_usd, "USD for judges"),
    ):
        if limit is not None and used >= limit:
            return f"{whose} is spent: {used:.10g} of {limit:.10g} {what}"
    return ""


def budget_of(document: Mapping[str, Any] | None) -> Budget | None:
    """The budget that a row keeps as JSON."""
    return None if document is None else Budget.model_validate(document)


def reason_not_to_start(session: Session, run_id: UUID) -> str:
    """Why a run must not be started: the budget that is spent; empty where there is none."""
    query = (
        select(Job.budget, Job.experiment_id, Experiment.budget.label("shared"))
        .join(Run, Run.job_id == Job.id)
        .outerjoin(Experiment, Experiment.id == Job.experiment_id)
        .where(Run.id == run_id, or_(Job.budget.is_not(None), Experiment.budget.is_not(None)))
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return ""
    if own := budget_of(row.budget):
        reason = excess(own, spent_by_runs(session, [run_id])[run_id], "the run's budget")
        if reason:
            return reason
    shared = budget_of(row.shared)
    return "" if shared is None else _shared_excess(session, row.experiment_id, shared)


def _shared_excess(session: Session, experiment_id: UUID, budget: Budget) -> str:
    runs = select(Run.id).join(Job, Job.id == Run.job_id).where(Job.experiment_id == experiment_id)
    total = Spent()
    for spent in spent_by_runs(session, session.scalars(runs)).values():
        total.add(spent)
    return excess(budget, total, "the experiment's budget")


def enforce(session: Session) -> list[UUID]:
    """Ends the runs whose budget is spent: live ones at their next checkpoint, others now. Gives those it ended."""
    unfinished = (Run.state.not_in(TERMINAL), Run.stop_reason == "")
    own = select(Run.id, Job.budget).join(Job, Job.id == Run.job_id).where(*unfinished, Job.budget.is_not(None))
    budgets = {run_id: Budget.model_validate(document) for run_id, document in session.execute(own)}
    reasons = {
        run_id: reason
        for run_id, spent in spent_by_runs(session, budgets).items()
        if (reason := excess(budgets[run_id], spent, "the run's budget"))
    }
    shared = (
        select(Run.id, Job.experiment_id, Experiment.budget)
        .join(Job, Job.id == Run.job_id)
        .join(Experiment, Experiment.id == Job.experiment_id)
        .where(*unfinished, Experiment.budget.is_not(None))
    )
    by_experiment: dict[UUID, list[UUID]] = defaultdict(list)
    documents: dict[UUID, Budget] = {}
    for run_id, experiment_id, document in session.execute(shared):
        if experiment_id is not None:
            by_experiment[experiment_id].append(run_id)
            documents[experiment_id] = Budget.model_validate(document)
    for experiment_id, budget in documents.items():
        if reason := _shared_excess(session, experiment_id, budget):
            reasons |= {run_id: reason for run_id in by_experiment[experiment_id] if run_id not in reasons}
    happenings: list[Happening] = []
    ended = [run_id for run_id in sorted(reasons) if _end(session, run_id, reasons[run_id], happenings)]
    settle(session, happenings)
    return ended


def _end(session: Session, run_id: UUID, reason: str, happenings: list[Happening]) -> bool:
    """Ends one run, unless it has ended or was told already."""
    columns = (Run.job_id, Run.seed, Run.attempt, Run.state, Run.stop_reason)
    row = session.execute(select(*columns).where(Run.id == run_id).with_for_update()).one()
    if row.state in TERMINAL or row.stop_reason:
        return False
    values: dict[str, Any] = {"stop_reason": reason, "status_reason": reason, "version": Run.version + 1}
    moment = database_time(session)
    state = RunState.STOPPING if row.state in LIVE else RunState.CANCELLED
    if state is RunState.STOPPING:
        values |= {"desired": Desired.PAUSE}
    else:
        values |= {"error_code": BUDGET_EXCEEDED, "error_message": reason, "finished_at": moment}
    session.execute(update(Run).where(Run.id == run_id).values(state=state, **values))
    happenings.append(state_event(run_id, row.job_id, row.seed, row.attempt, state, reason))
    if state is RunState.CANCELLED:
        happenings += after_end(session, run_id, state, moment)
    return True


def capped(session: Session, document: dict[str, Any], spec: JobSpec, job_id: UUID) -> dict[str, Any]:
    """A run's configuration in which no endpoint may spend more than the budgets leave to the run.

    An experiment's `judge_usd` is shared out equally over the runs of its jobs that ask endpoints for money, so that
    runs at the same time cannot spend it twice; a run's share equally over its endpoints.
    """
    query = (
        select(Job.budget, Job.experiment_id, Experiment.budget.label("shared"))
        .outerjoin(Experiment, Experiment.id == Job.experiment_id)
        .where(Job.id == job_id)
    )
    row = session.execute(query).one()
    limits = []
    if (own := budget_of(row.budget)) and own.judge_usd is not None:
        limits.append(own.judge_usd)
    if (shared := budget_of(row.shared)) and shared.judge_usd is not None:
        jobs = session.execute(select(Job.id, Job.spec).where(Job.experiment_id == row.experiment_id))
        asking = [asker for asker, other in jobs if priced_endpoints(spec_of(other).config)]
        count = session.scalar(select(func.count()).select_from(Run).where(Run.job_id.in_(asking))) or 1
        limits.append(shared.judge_usd / count)
    places = priced_endpoints(spec.config)
    for pointer, cap in places if limits else ():
        share = min(limits) / len(places)
        replaced(document, (*pointer, "spending_cap"), min(cap or share, share))
    return document


def priced_endpoints(config: Config) -> list[tuple[tuple[str, ...], float]]:
    """The endpoints that ask money: where they stand in the configuration, and their own spending cap."""
    found = []
    for pointer, endpoint in endpoints(config, ""):
        if endpoint.prices.input_per_million or endpoint.prices.output_per_million:
            found.append((tuple(pointer.split("/")[1:]), endpoint.spending_cap))
    return found
