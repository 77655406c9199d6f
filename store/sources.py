"""Where a job's inputs come from: the job behind a reference, and the run of it that serves a seed."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import NotFound
from store.ids import decode_id
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.specs import JobSpec, Reference, references
from store.tombstones import absent

_JOB_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)

GIVES = {
    "sft": frozenset({"model"}),
    "train": frozenset({"model"}),
    "dpo": frozenset({"model", "reward-model"}),
    "pairs": frozenset({"data"}),
    "evaluation": frozenset({"completions"}),
    "score": frozenset[str](),
    "sample": frozenset[str](),
    "import": frozenset({"model"}),
}
"""What the output of a kind of job can be an input as."""


@dataclass(frozen=True, slots=True)
class ServingRun:
    """The run whose output an input takes."""

    id: UUID
    """Whose directory holds the output: the run itself, or the one that it reused."""
    run_id: UUID
    """The run itself: what is waited for."""
    state: str
    output_attempt: int


def document_of(spec: JobSpec) -> dict[str, Any]:
    """The spec as JSON for its row, every default written out; without the config's `seed`, which each run sets."""
    return spec.model_dump(mode="json", exclude={"config": {"seed"}})


def spec_of(document: dict[str, Any]) -> JobSpec:
    """The spec of a stored document."""
    return _JOB_SPEC.validate_python(document, strict=False)


def inputs_of(document: dict[str, Any]) -> list[Reference]:
    """Every input that a stored document names; none where it is of a time whose specs this program cannot read."""
    try:
        return list(references(spec_of(document).config))
    except ValueError:
        return []


def source_job_id(session: Session, reference: Reference, experiment_id: UUID | None) -> UUID | None:
    """The job behind a reference to a job; None for other schemes.

    Raises:
        NotFound: there is no such job.
    """
    if reference.scheme == "job-id":
        job_id = decode_id("job", reference.value)
        if session.scalar(select(Job.id).where(Job.id == job_id)) is None:
            raise absent(session, "job", job_id)
        return job_id
    if reference.scheme == "job-name":
        named = select(Job.id).where(Job.experiment_id == experiment_id, Job.name == reference.value)
        found = session.scalar(named) if experiment_id is not None else None
        if found is None:
            raise NotFound("job of the experiment", reference.value)
        return found
    return None


def serving_run(session: Session, job_id: UUID, seed: int, *, lock: bool = False) -> ServingRun | None:
    """The run of a job that serves a seed: the one of that seed, or the job's only one. None where neither exists.

    Args:
        lock: keep the run from ending before this transaction does.
    """
    query = (
        select(Run.id, Run.reused_run_id, Run.seed, Run.state, Run.output_attempt)
        .where(Run.job_id == job_id)
        .order_by(Run.id)
    )
    if lock:
        query = query.with_for_update(read=True)
    rows = session.execute(query).all()
    for row in rows:
        if row.seed == seed or len(rows) == 1:
            return ServingRun(row.reused_run_id or row.id, row.id, row.state, row.output_attempt)
    return None


def evaluated_checkpoint(session: Session, spec: JobSpec, seed: int, experiment_id: UUID | None) -> UUID | None:
    """The checkpoint that an evaluation run measures; None for an imported model."""
    for reference in references(spec.config):
        if reference.pointer != ("policy",):
            continue
        if reference.scheme == "checkpoint-id":
            return decode_id("ckpt", reference.value)
        job_id = source_job_id(session, reference, experiment_id)
        run = None if job_id is None else serving_run(session, job_id, seed)
        if run is not None:
            published = select(Checkpoint.id).where(
                Checkpoint.run_id == run.id, Checkpoint.attempt == run.output_attempt, Checkpoint.kind == "model"
            )
            return session.scalar(published.order_by(Checkpoint.step.desc()).limit(1))
    return None
