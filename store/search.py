"""A search under way: trials wait at the end of each rung until all are there, then the best of them go on.

Everything is decided from rows in one transaction that holds the trials' locks, and is the same whoever decides: the
metric's mean over seeds at the rung's last step, ties to the earlier trial. Who was stopped is `cancelled` with the
reason; who goes on resumes from its checkpoint. Safe to run twice, anywhere, and after a kill at any point.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from lco.config import sources
from store.database import database_time
from store.effects import Happening, after_end, requeue_values, settle, state_event
from store.models.job import Experiment, Job
from store.models.record import Metric
from store.models.run import Run
from store.models.search import SearchTrial
from store.search_spec import SearchSpec, check_member
from store.specs import EvaluationSpec, ExperimentSpec
from store.states import TERMINAL, Desired, RunState, decide


def check_search(spec: ExperimentSpec) -> dict[str, list[int]]:
    """The rungs of every job that competes, in optimizer steps.

    Raises:
        Invalid: a job cannot be compared fairly, or its metric is never measured.
    """
    if spec.search is None:
        return {}
    reported = {
        value: f"jobs.{job.name}"
        for job in reversed(spec.jobs)
        if isinstance(job, EvaluationSpec)
        for pointer, source, value in sources(job.config)
        if pointer[0] == "benchmarks" and source.kind == "data"
    }
    positions = {job.name: position for position, job in enumerate(spec.jobs)}
    return {
        member.job: check_member(
            spec.search, spec.jobs[positions[member.job]].config, reported, f"/jobs/{positions[member.job]}"
        )
        for member in spec.search.members
    }


def begin(session: Session, experiment: Experiment, spec: ExperimentSpec, jobs: Mapping[str, Job]) -> None:
    """Writes down the trials of a new experiment, and where their runs pause first."""
    rungs = check_search(spec)
    if spec.search is None:
        return
    session.execute(
        insert(SearchTrial),
        [
            {
                "job_id": jobs[member.job].id,
                "experiment_id": experiment.id,
                "name": member.trial,
                "arm": member.arm,
                "position": position,
                "parameters": member.parameters,
                "steps": rungs[member.job],
                "rung": 0,
                "state": "running",
                "reason": "",
                "values": [],
            }
            for position, member in enumerate(spec.search.members)
        ],
    )
    for name, steps in rungs.items():
        if len(steps) > 1:
            first = update(Run).where(Run.job_id == jobs[name].id, Run.state.not_in(TERMINAL))
            session.execute(first.values(pause_at_step=steps[0]))


@dataclass(frozen=True, slots=True)
class _Racer:
    """A trial with its runs."""

    trial: SearchTrial
    runs: Sequence[Any]
    """id, job_id, seed, attempt, state, is_held, blocked_on, reused_run_id."""

    @property
    def is_last_rung(self) -> bool:
        return self.trial.rung == len(self.trial.steps) - 1

    @property
    def has_arrived(self) -> bool:
        """Whether every run is at the end of the rung, or will never be."""
        return all(run.state in TERMINAL or (run.is_held and not self.is_last_rung) for run in self.runs)


def advance_searches(session: Session) -> int:
    """Carries every search as far as its trials have come; the number of trials decided upon."""
    running = select(SearchTrial.experiment_id).where(SearchTrial.state == "running").distinct()
    happenings: list[Happening] = []
    count = 0
    for experiment_id in sorted(session.scalars(running).all()):
        count += _advance(session, experiment_id, happenings)
    settle(session, happenings)
    return count


def _advance(session: Session, experiment_id: UUID, happenings: list[Happening]) -> int:
    trials = session.scalars(
        select(SearchTrial)
        .where(SearchTrial.experiment_id == experiment_id, SearchTrial.state == "running")
        .order_by(SearchTrial.position)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    if not trials:
        return 0  # another was faster
    document = session.scalars(select(Experiment.document).where(Experiment.id == experiment_id)).one()
    search = SearchSpec.model_validate(document["search"], strict=False)
    columns = (Run.id, Run.job_id, Run.seed, Run.attempt, Run.state, Run.is_held, Run.blocked_on, Run.reused_run_id)
    query = select(*columns).where(Run.job_id.in_([trial.job_id for trial in trials])).order_by(Run.id)
    runs: dict[UUID, list[Any]] = defaultdict(list)
    for run in session.execute(query.with_for_update()):
        runs[run.job_id].append(run)
    arms: dict[str, list[_Racer]] = defaultdict(list)
    for trial in trials:
        arms[trial.arm].append(_Racer(trial, runs[trial.job_id]))
    decided = 0
    for racers in arms.values():
        if not all(racer.has_arrived for racer in racers):
            continue
        decided += len(racers)
        _decide(session, racers, search, happenings)
    return decided


def _decide(session: Session, racers: Sequence[_Racer], search: SearchSpec, happenings: list[Happening]) -> None:
    """What follows for the trials of one arm that have all come to the end of their rung."""
    values = {
        racer.trial.job_id: metric_mean(session, racer.runs, search.metric, racer.trial.steps[racer.trial.rung])
        for racer in racers
    }
    for racer in racers:
        racer.trial.values = [*racer.trial.values, values[racer.trial.job_id]]
    if racers[0].is_last_rung:
        for racer in racers:
            racer.trial.state = "finished"
        return
    sign = -1.0 if search.goal == "max" else 1.0

    def rank(racer: _Racer) -> tuple[bool, float, int]:
        value = values[racer.trial.job_id]
        return value is None, 0.0 if value is None else sign * value, racer.trial.position

    assert search.halving is not None
    kept = max(1, len(racers) // search.halving.factor)
    for place, racer in enumerate(sorted(racers, key=rank), start=1):
        value, trial = values[racer.trial.job_id], racer.trial
        if place <= kept and value is not None:
            trial.rung += 1
            _go_on(session, racer, happenings)
            continue
        told = "none" if value is None else f"{value:.4g}"
        trial.state = "stopped"
        trial.reason = (
            f"stopped by the search after step {trial.steps[trial.rung]}: {search.metric} {told}, "
            f"place {place} of {len(racers)}, {kept} went on"
        )
        _stop(session, racer, trial.reason, happenings)


def metric_mean(session: Session, runs: Sequence[Any], metric: str, step: int) -> float | None:
    """Mean over seeds of a metric's newest value up to a step; None where a seed has none, or has failed."""
    values = []
    for run in runs:
        if run.state in TERMINAL and run.state != RunState.SUCCEEDED:
            return None
        query = (
            select(Metric.value)
            .where(Metric.run_id == (run.reused_run_id or run.id), Metric.key == metric)
            .order_by(Metric.step.desc())
            .limit(1)
        )
        value = session.scalar(query.where(Metric.step <= step) if step else query)
        if value is None:
            return None
        values.append(value)
    return fsum(values) / len(values) if values else None


def _go_on(session: Session, racer: _Racer, happenings: list[Happening]) -> None:
    """Lets the runs of a trial go on into the next rung, from their checkpoints."""
    trial = racer.trial
    end = None if racer.is_last_rung else trial.steps[trial.rung]
    for run in racer.runs:
        if run.state in TERMINAL:  # it took over a finished output
            continue
        decision = decide(RunState(run.state), Desired.RUN, is_blocked=run.blocked_on > 0)
        reason = f"goes on to rung {trial.rung + 1} of {len(trial.steps)} of its search"
        values = {"state": decision.state, "desired": Desired.RUN, "status_reason": reason, "version": Run.version + 1}
        values |= requeue_values(session)
        session.execute(update(Run).where(Run.id == run.id).values(pause_at_step=end, is_held=False, **values))
        happenings.append(state_event(run.id, run.job_id, run.seed, run.attempt, decision.state, reason))


def _stop(session: Session, racer: _Racer, reason: str, happenings: list[Happening]) -> None:
    """Ends the runs of a trial that wait, and what depends on them."""
    moment = database_time(session)
    for run in racer.runs:
        if run.state in TERMINAL:
            continue
        session.execute(
            update(Run)
            .where(Run.id == run.id)
            .values(
                state=RunState.CANCELLED,
                desired=Desired.CANCEL,
                status_reason=reason,
                is_held=False,
                is_passed_over=True,
                finished_at=moment,
                version=Run.version + 1,
            )
        )
        happenings.append(state_event(run.id, run.job_id, run.seed, run.attempt, RunState.CANCELLED, reason))
        happenings += after_end(session, run.id, RunState.CANCELLED, moment)


@dataclass(frozen=True, slots=True)
class TrialNow:
    """A trial as it stands."""

    trial: SearchTrial
    job: Job
    value: float | None
    """The newest value of the metric, the mean over seeds."""
    is_best: bool
    """Whether none of its arm is better among those that have come as far."""


def trials_now(session: Session, experiment_id: UUID, search: SearchSpec) -> list[TrialNow]:
    """The trials of an experiment in their order."""
    query = (
        select(SearchTrial, Job)
        .join(Job, Job.id == SearchTrial.job_id)
        .where(SearchTrial.experiment_id == experiment_id)
        .order_by(SearchTrial.position)
    )
    rows = session.execute(query).all()
    columns = (Run.id, Run.job_id, Run.state, Run.reused_run_id, Run.latest_metrics)
    runs: dict[UUID, list[Any]] = defaultdict(list)
    for run in session.execute(select(*columns).where(Run.job_id.in_([trial.job_id for trial, _ in rows]))):
        runs[run.job_id].append(run)
    values: dict[UUID, float | None] = {}
    for trial, _ in rows:
        decided = [value for value in trial.values if value is not None]
        values[trial.job_id] = (
            (decided[-1] if decided else None)
            if trial.state != "running"
            else _newest(runs[trial.job_id], search.metric)
        )
    best: dict[str, UUID] = {}
    sign = 1.0 if search.goal == "max" else -1.0
    for trial, _ in rows:
        value = values[trial.job_id]
        if value is None:
            continue
        held = best.get(trial.arm)
        mark = (len(trial.values), trial.rung, sign * value)
        if held is None or mark > _mark(next(t for t, _ in rows if t.job_id == held), values, sign):
            best[trial.arm] = trial.job_id
    return [TrialNow(trial, job, values[trial.job_id], best.get(trial.arm) == trial.job_id) for trial, job in rows]


def _mark(trial: SearchTrial, values: Mapping[UUID, float | None], sign: float) -> tuple[int, int, float]:
    value = values[trial.job_id]
    assert value is not None
    return len(trial.values), trial.rung, sign * value


def _newest(runs: Sequence[Any], metric: str) -> float | None:
    found = [run.latest_metrics.get(metric) for run in runs]
    known = [float(value) for value in found if isinstance(value, int | float)]
    return fsum(known) / len(known) if known and len(known) == len(found) else None


def count_running(session: Session, experiment_id: UUID) -> int:
    """Trials of which the search has not decided for the last time."""
    query = select(func.count()).select_from(SearchTrial)
    query = query.where(SearchTrial.experiment_id == experiment_id, SearchTrial.state == "running")
    return session.scalar(query) or 0
