"""Runs and checkpoints side by side: where their configurations differ, newest metrics, what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.documents import leaves
from store.errors import Invalid
from store.ids import decode_id
from store.models.job import Job
from store.models.record import Checkpoint, Result
from store.models.run import Run
from store.statistics import spread


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the things that are compared."""

    id: str
    """As it was named: `run_...` or `ckpt_...`."""
    run: Run
    """It, or the run that made it."""
    job: Job
    checkpoint_ids: tuple[UUID, ...]
    """The checkpoint, or every published model of the run."""


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    """A metric's newest value for each subject; None where it has none."""

    key: str
    values: list[float | None]


@dataclass(frozen=True, slots=True)
class ComparedResult:
    """One measurement for each subject: the mean over its eval seeds, None where it was not made."""

    benchmark: str
    metric: str
    decoding: str
    configuration: str
    values: list[float | None]
    num_eval_seeds: list[int]


def subjects(session: Session, names: Sequence[str]) -> list[Subject]:
    """The runs and checkpoints that are named, in their order.

    Raises:
        Invalid: one does not exist.
    """
    return [_subject(session, name, position) for position, name in enumerate(names)]


def _subject(session: Session, name: str, position: int) -> Subject:
    checkpoint_ids: tuple[UUID, ...] = ()
    try:
        if name.startswith("ckpt_"):
            checkpoint = session.scalar(select(Checkpoint).where(Checkpoint.id == decode_id("ckpt", name)))
            run_id = None if checkpoint is None else checkpoint.run_id
            checkpoint_ids = () if checkpoint is None else (checkpoint.id,)
        else:
            run_id = decode_id("run", name)
    except ValueError:
        raise Invalid(f"/ids/{position}", f"{name[:64]!r} is no id of a run or a checkpoint") from None
    row = session.execute(select(Run, Job).join(Job, Job.id == Run.job_id).where(Run.id == run_id)).one_or_none()
    if row is None:
        raise Invalid(f"/ids/{position}", f"there is no {name}, or no run made it")
    run, job = row
    if not checkpoint_ids:
        owner = run.reused_run_id or run.id
        models = select(Checkpoint.id).where(Checkpoint.run_id == owner, Checkpoint.kind == "model")
        checkpoint_ids = tuple(session.scalars(models.order_by(Checkpoint.id)))
    return Subject(name, run, job, checkpoint_ids)


def configuration_differences(found: Sequence[Subject]) -> list[tuple[str, list[Any]]]:
    """(pointer, the value of each subject) where they are not all equal; None where a configuration has nothing.

    The kind of job and the seed are compared beside what stands in the configuration.
    """
    documents: list[dict[str, Any]] = [
        {"/kind": one.run.kind, "/seed": one.run.seed, **dict(leaves(one.job.spec["config"], "/config"))}
        for one in found
    ]
    pointers = list(dict.fromkeys(pointer for document in documents for pointer in document))
    rows = [(pointer, [document.get(pointer) for document in documents]) for pointer in pointers]
    return [(pointer, values) for pointer, values in rows if any(value != values[0] for value in values)]


def newest_metrics(found: Sequence[Subject]) -> list[ComparedMetric]:
    """The newest value of every metric that a subject has, in alphabetical order."""
    keys = sorted({key for one in found for key in one.run.latest_metrics})
    return [ComparedMetric(key, [one.run.latest_metrics.get(key) for one in found]) for key in keys]


def measured(session: Session, found: Sequence[Subject]) -> list[ComparedResult]:
    """What was measured of the subjects: by an evaluation run itself, or of the models that a run published."""
    cells = [_cells(session, one) for one in found]
    keys = sorted({key for each in cells for key in each})
    return [
        ComparedResult(
            *key,
            values=[spread(each.get(key, [])).mean for each in cells],
            num_eval_seeds=[len(each.get(key, [])) for each in cells],
        )
        for key in keys
    ]


def _cells(session: Session, one: Subject) -> Mapping[tuple[str, str, str, str], list[float]]:
    is_its = Result.checkpoint_id.in_(one.checkpoint_ids) if one.checkpoint_ids else Result.run_id == one.run.id
    newest: dict[tuple[tuple[str, str, str, str], int | None], float] = {}
    for row in session.scalars(select(Result).where(is_its).order_by(Result.id)):
        if row.value is not None:  # the same measurement again replaces the older one
            newest[(row.benchmark, row.metric, row.decoding, row.configuration), row.eval_seed] = row.value
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for (key, _), value in newest.items():
        found.setdefault(key, []).append(value)
    return found


def label(one: Subject) -> str:
    """What a person calls it: the job and its seed."""
    step = f", {one.id[:12]}" if one.id.startswith("ckpt_") else ""
    return f"{one.job.name} seed {one.run.seed}{step}"
