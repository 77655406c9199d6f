"""What holds a checkpoint or a run: what would be broken, or surprised, if it were deleted."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import String, cast, func, or_, select
from sqlalchemy.orm import Session

from store.ids import encode_id
from store.models.base import Base
from store.models.dataset import Alias
from store.models.job import Job
from store.models.record import Checkpoint, Result
from store.models.registry import Model
from store.models.run import Run, RunDependency
from store.models.suite import OPEN, Suite, SuiteVersion, Verdict
from store.states import TERMINAL

_MANY = 3

OWN = frozenset({
    "experiments", "jobs", "runs", "run_dependencies", "attempts", "checkpoints", "results", "completions", "metrics",
    "log_chunks", "events", "rollouts", "mirrors",
})  # fmt: skip
"""Tables whose rows go with the job or run that they belong to. A row of any other one that refers to it holds it."""


def of_checkpoints(session: Session, checkpoints: Iterable[Checkpoint]) -> dict[UUID, list[str]]:
    """For each of some checkpoints what keeps it from being deleted, in words; those that nothing holds are left out.

    Results are no reason: they stay, beside the checkpoint's row.
    """
    found: dict[UUID, list[str]] = defaultdict(list)
    rows = list(checkpoints)
    ids = [row.id for row in rows]
    for row in rows:
        if row.is_pinned:
            found[row.id].append("it is pinned")
    for alias in session.scalars(select(Alias).where(Alias.checkpoint_id.in_(ids)).order_by(Alias.name)):
        found[alias.checkpoint_id].append(f"alias:{alias.name} means it")
    for checkpoint_id, reason in [*_baselines(session, ids), *_awaited(session, ids)]:
        found[checkpoint_id].append(reason)
    models = select(Model.id, Model.name).where(Model.id.in_({row.model_id for row in rows if row.model_id}))
    names = dict(session.execute(models).all())
    for row in rows:
        if row.model_id in names:
            found[row.id].append(f"it is the registered model {names[row.model_id]}: remove that")
    for checkpoint_id, job in _named(session, ids, is_ended=False):
        found[checkpoint_id].append(f"{job} takes it as an input and has not ended")
    run_ids = {row.run_id for row in rows if row.run_id is not None}
    live = set(session.scalars(select(Run.id).where(Run.id.in_(run_ids), Run.state.not_in(TERMINAL))))
    waiting, reusing = _waiting(session, run_ids), _reusing(session, run_ids, frozenset())
    for row in rows:
        if row.run_id is None:
            continue
        if row.run_id in live:
            found[row.id].append(f"{encode_id('run', row.run_id)} has not ended and may resume from it")
        if row.kind == "model":
            found[row.id] += [f"{job} takes it as an input and has not ended" for job in waiting.get(row.run_id, [])]
            found[row.id] += [f"{job} took over the output of its run" for job in reusing.get(row.run_id, [])]
    return {identifier: list(dict.fromkeys(reasons)) for identifier, reasons in found.items() if reasons}


def of_runs(session: Session, run_ids: Collection[UUID], job_ids: Collection[UUID]) -> list[str]:
    """What keeps runs, and with them the jobs `job_ids`, from being deleted, in words: what outside refers to them."""
    reasons = []
    needing = (
        select(Job.id, Job.name)
        .join(Run, Run.job_id == Job.id)
        .join(RunDependency, RunDependency.run_id == Run.id)
        .where(RunDependency.needs_id.in_(run_ids), Run.id.not_in(run_ids))
        .distinct()
        .order_by(Job.id)
    )
    made = {job_id: name for job_id, name in session.execute(needing)}  # noqa: C416 - rows are no pairs to mypy
    reasons += [f"{_job(job_id, name)} was made from it" for job_id, name in made.items()]
    for jobs in _reusing(session, run_ids, frozenset(run_ids)).values():
        reasons += [f"{job} took over its output" for job in jobs]
    mine = select(Checkpoint).where(Checkpoint.run_id.in_(run_ids))
    checkpoints = list(session.scalars(mine.order_by(Checkpoint.id)))
    ids = [row.id for row in checkpoints]
    reasons += [f"{encode_id('ckpt', row.id)} is pinned" for row in checkpoints if row.is_pinned]
    aliases = select(Alias.name).where(Alias.checkpoint_id.in_(ids)).order_by(Alias.name)
    reasons += [f"alias:{name} means a checkpoint of it" for name in session.scalars(aliases)]
    reasons += [f"{job} was made from it" for _, job in _named(session, ids, is_ended=None, without=job_ids)]
    measured = (
        select(Job.id, Job.name)
        .join(Result, Result.job_id == Job.id)
        .where(Result.checkpoint_id.in_(ids), Result.run_id.not_in(run_ids), Result.job_id.not_in(made))
        .distinct()
        .order_by(Job.id)
    )
    reasons += [f"{_job(job_id, name)} measured it" for job_id, name in session.execute(measured)]
    models = select(Model.name).where(Model.job_id.in_(job_ids)).order_by(Model.name)
    reasons += [f"it is where the registered model {name} comes from: remove that" for name in session.scalars(models)]
    if not reasons:
        reasons += rows_elsewhere(session, {"runs": run_ids, "jobs": job_ids, "checkpoints": ids})
    return list(dict.fromkeys(reasons))


def told(reasons: Collection[str]) -> str:
    """Reasons as one sentence: the first few, and how many more there are."""
    shown = list(reasons)[:_MANY]
    more = len(reasons) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _job(job_id: UUID, name: str) -> str:
    return f"the job {name} ({encode_id('job', job_id)})"


def _named(
    session: Session, ids: Collection[UUID], *, is_ended: bool | None, without: Collection[UUID] = ()
) -> list[tuple[UUID, str]]:
    """Jobs that take one of some checkpoints by its id: (checkpoint, job in words).

    Args:
        is_ended: only jobs that have ended, or that have not.
    """
    if not ids:
        return []
    text = cast(Job.spec, String)
    query = select(Job.id, Job.name, text).where(text.contains("ckpt_"), Job.id.not_in(without))
    if is_ended is not None:
        live = select(Run.job_id).where(Run.state.not_in(TERMINAL))
        query = query.where(Job.id.not_in(live) if is_ended else Job.id.in_(live))
    return [
        (identifier, _job(job_id, name))
        for job_id, name, spec in session.execute(query.order_by(Job.id))
        for identifier in ids
        if encode_id("ckpt", identifier) in spec
    ]


def _baselines(session: Session, ids: Collection[UUID]) -> list[tuple[UUID, str]]:
    """Checkpoints that suites in use name as their baseline, which a new version would have to evaluate, and why."""
    current = (SuiteVersion.suite_id == Suite.id) & (SuiteVersion.version == Suite.version)
    query = select(Suite.name, SuiteVersion.plan).join(SuiteVersion, current).where(Suite.archived_at.is_(None))
    by_name = {encode_id("ckpt", identifier): identifier for identifier in ids}
    return [
        (by_name[row.plan["baseline"]], f"it is the baseline of the suite {row.name}")
        for row in session.execute(query.order_by(Suite.name))
        if row.plan["baseline"] in by_name
    ]


def _awaited(session: Session, ids: Collection[UUID]) -> list[tuple[UUID, str]]:
    """Checkpoints that open verdicts judge, or compare others with, and why. Decided ones need no files."""
    query = select(Verdict).where(
        Verdict.state.in_(OPEN), or_(Verdict.checkpoint_id.in_(ids), Verdict.baseline_id.in_(ids))
    )
    return [
        (identifier, f"{encode_id('vrd', verdict.id)} is not decided yet")
        for verdict in session.scalars(query.order_by(Verdict.id))
        for identifier in (verdict.checkpoint_id, verdict.baseline_id)
        if identifier is not None and identifier in ids
    ]


def _waiting(session: Session, run_ids: Collection[UUID]) -> dict[UUID, list[str]]:
    """For each of some runs, or those that took over its output, the jobs that have it as an input and not ended."""
    takers = {run_id: run_id for run_id in run_ids}
    query = select(Run.id, Run.reused_run_id).where(Run.reused_run_id.in_(run_ids))
    takers |= {taker: source for taker, source in session.execute(query) if source is not None}
    needing = (
        select(RunDependency.needs_id, Job.id, Job.name)
        .join(Run, Run.id == RunDependency.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(RunDependency.needs_id.in_(takers), Run.state.not_in(TERMINAL))
        .order_by(Job.id)
    )
    found: dict[UUID, list[str]] = defaultdict(list)
    for needs_id, job_id, name in session.execute(needing):
        found[takers[needs_id]].append(_job(job_id, name))
    return found


def _reusing(session: Session, run_ids: Collection[UUID], without: frozenset[UUID]) -> dict[UUID, list[str]]:
    """For each of some runs the jobs whose runs took over its output."""
    query = (
        select(Run.reused_run_id, Job.id, Job.name)
        .join(Job, Job.id == Run.job_id)
        .where(Run.reused_run_id.in_(run_ids), Run.id.not_in(without))
        .order_by(Job.id)
    )
    found: dict[UUID, list[str]] = defaultdict(list)
    for run_id, job_id, name in session.execute(query):
        assert run_id is not None
        found[run_id].append(_job(job_id, name))
    return found


def rows_elsewhere(session: Session, wanted: dict[str, Collection[UUID]]) -> list[str]:
    """Rows of any other table that refer to some of these."""
    reasons = []
    for table in Base.metadata.sorted_tables:
        if table.name in OWN:
            continue
        for key in table.foreign_keys:
            ids = wanted.get(key.column.table.name, ())
            if ids:
                count = session.scalar(select(func.count()).select_from(table).where(key.parent.in_(ids)))
                if count:
                    reasons.append(f"{count} of {table.name.replace('_', ' ')} refer to it")
    return reasons
