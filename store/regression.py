"""Verdicts are asked for: once per suite version and checkpoint, with the evaluations that they need.

`request_verdict` is all that a schedule, a watcher, a filter or a person needs; it may be called any number of times,
by several at once.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from store.confinement import confine, project_of
from store.database import database_time
from store.errors import Conflict, Invalid, NotFound, StoreError
from store.ids import decode_id, encode_id, new_id
from store.models.dataset import Alias
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import Suite, SuiteEvaluation, Verdict
from store.naming import settled
from store.notifications import publish
from store.repositories.suites import Suites, Verdicts
from store.settings import Settings
from store.sources import GIVES
from store.specs import EvaluationSpec
from store.submission import submit_job
from store.suite_specs import Plan, SuiteSpec, evaluation_of
from store.upserts import insert_into

_TOLD = ("benchmark", "metric", "decoding", "outcome", "value", "baseline_value", "difference", "max_drop", "min_value")
"""Of each gate, in notifications."""
ENDED_BADLY = ("failed", "cancelled")
"""Statuses of a job that give no result."""


def create_suite(session: Session, spec: SuiteSpec) -> Suite:
    """A suite with its first version.

    Raises:
        Conflict: the project has one of this name.
        Invalid: the baseline or a data set does not exist.
    """
    plan = _settled_plan(session, spec.plan())
    return Suites(session).create(spec.name, spec.description, spec.triggers, plan)


def change_suite(session: Session, suite_id: UUID, spec: SuiteSpec) -> Suite:
    """Makes a suite what the spec says: a new version where what it measures or asks is another.

    Raises:
        NotFound: there is no such suite.
        Conflict: the project has another one of this name.
        Invalid: the baseline or a data set does not exist.
    """
    suites = Suites(session)
    suite = suites.locked(suite_id)
    plan = _settled_plan(session, spec.plan())
    is_same = plan == suites.plan(suite.id, suite.version).model_dump(mode="json")
    triggers = spec.triggers.model_dump(mode="json")
    suites.change(suite, spec.name, spec.description, triggers, None if is_same else plan)
    return suite


def document_of_suite(session: Session, suite: Suite) -> dict[str, Any]:
    """The spec that a suite is of now: what a patch changes."""
    plan = Suites(session).plan(suite.id, suite.version).model_dump(mode="json")
    return {"name": suite.name, "description": suite.description, **plan, "triggers": suite.triggers}


def _settled_plan(session: Session, plan: Plan) -> dict[str, Any]:
    """The plan with a version behind each data set, after a check that its baseline exists."""
    try:
        resolve_checkpoint(session, plan.baseline)
    except (NotFound, ValueError) as error:
        raise Invalid("/baseline", str(error)) from None
    spec = EvaluationSpec(kind="evaluation", name="suite", config=evaluation_of(plan, _ANY))
    # The policy is an id here, so that only data sets are settled.
    try:
        config = settled(session, spec).config
    except Invalid as error:
        raise Invalid(error.pointer.removeprefix("/config"), error.message) from None
    document = plan.model_dump(mode="json")
    document["benchmarks"] = config.model_dump(mode="json")["benchmarks"]
    return document


_ANY = "ckpt_" + "0" * 26


def resolve_checkpoint(session: Session, text: str) -> UUID:
    """The published model that `ckpt_...` or `alias:NAME` means now.

    Raises:
        NotFound: there is none.
        ValueError: it is neither, or not something that can be evaluated.
    """
    if text.startswith("alias:"):
        name = text.removeprefix("alias:")
        query = select(Alias.checkpoint_id).where(Alias.name == name, Alias.project_id == project_of(session))
        found = session.scalar(query)
        if found is None:
            raise NotFound("alias", name[:64])
        return found
    identifier = decode_id("ckpt", text)
    _evaluable(session, identifier)
    return identifier


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a checkpoint comes from."""

    seed: int
    method: str


def _evaluable(session: Session, checkpoint_id: UUID) -> _Origin:
    query = (
        select(Checkpoint.kind, Checkpoint.deleted_at, Run.seed, Run.kind.label("run_kind"), Job.method)
        .outerjoin(Run, Run.id == Checkpoint.run_id)
        .outerjoin(Job, Job.id == Run.job_id)
        .where(Checkpoint.id == checkpoint_id, Checkpoint.project_id == project_of(session))
    )
    row = session.execute(query).one_or_none()
    name = encode_id("ckpt", checkpoint_id)
    if row is None:
        raise NotFound("checkpoint", name)
    if row.deleted_at is not None:
        raise ValueError(f"{name} was deleted on {row.deleted_at:%Y-%m-%d}")
    if row.kind != "model":
        raise ValueError(f"{name} is a resumable state, not a published model")
    if row.run_kind is not None and "model" not in GIVES[row.run_kind]:
        raise ValueError(f"{name} is of a {row.run_kind} run, which gives no model")
    return _Origin(row.seed or 0, row.method or name)


def request_verdict(
    session: Session, settings: Settings, *, suite_id: UUID, checkpoint_id: UUID, cause: str, project_id: UUID
) -> Verdict:
    """The verdict of the suite's current version on a checkpoint; asked for now, unless it was before.

    Its evaluation, and that of the baseline where the version has not evaluated it yet, are submitted as ordinary jobs.
    Where that cannot be done, the verdict is an `error` with the reason, to be tried again by `retry_verdict`.

    Args:
        cause: what asks, for a person.

    Raises:
        NotFound: the project has no such suite or checkpoint.
        Conflict: the suite is archived.
        Invalid: the checkpoint cannot be evaluated.
    """
    confine(session, project_id)
    suite = Suites(session).get(suite_id)
    if suite.archived_at is not None:
        raise Conflict("archived", f"the suite {suite.name} is archived", "archived")
    try:
        _evaluable(session, checkpoint_id)
    except ValueError as error:
        raise Invalid("/checkpoint", str(error)) from None
    version = suite.version
    plan = Suites(session).plan(suite_id, version)
    verdict_id = new_id()
    values = {
        "id": verdict_id,
        "project_id": project_id,
        "suite_id": suite_id,
        "version": version,
        "checkpoint_id": checkpoint_id,
        "cause": cause[:200],
        "state": "pending",
        "level": plan.level,
        "created_at": database_time(session),
    }
    if _is_new(session, Verdict, values):
        _start(session, settings, suite, plan, verdict_id, checkpoint_id)
    found = session.scalars(
        select(Verdict).where(
            Verdict.suite_id == suite_id, Verdict.version == version, Verdict.checkpoint_id == checkpoint_id
        )
    ).one()
    session.refresh(found)
    return found


def retry_verdict(session: Session, settings: Settings, verdict_id: UUID) -> Verdict:
    """Tries a verdict that ended in an error again: the baseline is looked up anew, failed evaluations are repeated.

    Raises:
        NotFound: there is no such verdict.
        Conflict: it is in another state.
    """
    verdict = Verdicts(session).get(verdict_id)
    confine(session, verdict.project_id)
    take = (
        update(Verdict)
        .where(Verdict.id == verdict_id, Verdict.state == "error")
        .values(state="pending", reason="", decided_at=None)
        .returning(Verdict.id)
    )
    if session.execute(take).one_or_none() is None:
        raise Conflict("invalid_state", "only a verdict that ended in an error is tried again", verdict.state)
    suite = Suites(session).get(verdict.suite_id)
    plan = Suites(session).plan(verdict.suite_id, verdict.version)
    _start(session, settings, suite, plan, verdict_id, verdict.checkpoint_id, verdict.version)
    session.refresh(verdict)
    return verdict


def _start(
    session: Session,
    settings: Settings,
    suite: Suite,
    plan: Plan,
    verdict_id: UUID,
    checkpoint_id: UUID,
    version: int | None = None,
) -> None:
    """Looks up the baseline and submits what is not evaluated yet; what fails makes the verdict an error."""
    values: dict[str, Any] = {}
    try:
        with session.begin_nested():  # a refused submission leaves no half of a job behind
            baseline_id = values["baseline_id"] = resolve_checkpoint(session, plan.baseline)
            number = version or suite.version
            for name, one in (("job_id", checkpoint_id), ("baseline_job_id", baseline_id)):
                values[name] = _evaluation(session, settings, suite, plan, number, one)
    except (StoreError, ValueError) as error:
        what = f"baseline {plan.baseline}: {error}" if "baseline_id" not in values else str(error)
        values = {"state": "error", "reason": what[:2000], "decided_at": database_time(session)}
    session.execute(update(Verdict).where(Verdict.id == verdict_id).values(**values))
    if "state" in values:
        verdict = Verdicts(session).get(verdict_id)
        session.refresh(verdict)
        tell_verdict(session, verdict)


def tell_verdict(session: Session, verdict: Verdict) -> None:
    """Writes the notification of a verdict that was decided or cannot be, in the transaction that says so."""
    data = {
        "suite_id": encode_id("suite", verdict.suite_id),
        "suite_name": Suites(session).names([verdict.suite_id])[verdict.suite_id],
        "version": verdict.version,
        "checkpoint_id": encode_id("ckpt", verdict.checkpoint_id),
        "baseline_id": None if verdict.baseline_id is None else encode_id("ckpt", verdict.baseline_id),
        "cause": verdict.cause,
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "promoted_alias": verdict.promoted_alias or None,
        "gates": [{name: figures[name] for name in _TOLD} for figures in verdict.figures],
    }
    what = verdict.outcome or verdict.state
    publish(session, f"verdict.{what}", encode_id("vrd", verdict.id), data, verdict.project_id)


def _evaluation(
    session: Session, settings: Settings, suite: Suite, plan: Plan, version: int, checkpoint_id: UUID
) -> UUID:
    """The job that evaluates a checkpoint for a version: the one that there is, unless it is of no use any more."""
    key = {"suite_id": suite.id, "version": version, "checkpoint_id": checkpoint_id}
    row = {**key, "created_at": database_time(session)}
    place = (
        SuiteEvaluation.suite_id == suite.id,
        SuiteEvaluation.version == version,
        SuiteEvaluation.checkpoint_id == checkpoint_id,
    )
    if not _is_new(session, SuiteEvaluation, row):
        # Two that find a failed one take turns at this lock, and the second finds the first one's job.
        job_id = session.scalar(select(SuiteEvaluation.job_id).where(*place).with_for_update())
        if job_id is not None and is_of_use(session, job_id):
            return job_id
    origin = _evaluable(session, checkpoint_id)
    name = encode_id("ckpt", checkpoint_id)
    spec = EvaluationSpec(
        kind="evaluation",
        name=suite.name,
        seeds=[origin.seed],
        method=origin.method[:64],
        priority=plan.priority,
        resources=plan.resources,
        metadata={"suite": encode_id("suite", suite.id), "suite-version": str(version), "checkpoint": name},
        config=evaluation_of(plan, name),
    )
    job = submit_job(session, spec, settings, reuse=True)
    session.execute(update(SuiteEvaluation).where(*place).values(job_id=job.id))
    return job.id


def is_of_use(session: Session, job_id: UUID) -> bool:
    """Whether an evaluation can still give a verdict: it did not fail, and its completions were not deleted by age."""
    owner = aliased(Run)
    query = (
        select(Job.status, Run.purged, owner.purged.label("owner_purged"))
        .join(Run, Run.job_id == Job.id)
        .outerjoin(owner, owner.id == Run.reused_run_id)
        .where(Job.id == job_id)
    )
    row = session.execute(query).one()
    return row.status not in ENDED_BADLY and "completions" not in {**row.purged, **(row.owner_purged or {})}


def _is_new(session: Session, table: type[Verdict] | type[SuiteEvaluation], values: dict[str, Any]) -> bool:
    """Inserts a row unless there is one with its key; waits for a transaction that is just inserting it."""
    statement = insert_into(session, table).values(**values).on_conflict_do_nothing()
    return session.execute(statement.returning(table.checkpoint_id)).one_or_none() is not None
