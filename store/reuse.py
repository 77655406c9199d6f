"""Reuse of finished stages: a run that would do what another one did takes over its output.

Two runs have one content hash when kind, configuration (every default written out), train seed, program and inputs are
equal; an input that is a job counts by the content of its run, a checkpoint by its manifest, a data set by the
hash of its rows, a model or data file by name, size and time of change (their bytes may be many gigabytes).
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.artifacts import data_file, model_directory, run_directory
from store.database import database_time
from store.ids import decode_id, new_id
from store.models.record import Checkpoint, Result
from store.models.run import Run
from store.naming import dataset_version
from store.objects import is_published
from store.settings import Settings
from store.software import program_hash
from store.sources import serving_run, source_job_id
from store.specs import JobSpec, Reference, references, replaced
from store.states import RunState


def content_hash(
    session: Session, settings: Settings, spec: JobSpec, seed: int, experiment_id: UUID | None
) -> str | None:
    """The content hash of one run of a spec; None where an input has none."""
    document: dict[str, Any] = spec.config.model_dump(mode="json", exclude={"seed"})
    for reference in references(spec.config):
        identity = _identity(session, settings, reference, seed, experiment_id)
        if identity is None:
            return None
        replaced(document, reference.pointer, identity)
    content = {"kind": spec.kind, "seed": seed, "config": document, "program": program_hash()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _identity(
    session: Session, settings: Settings, reference: Reference, seed: int, experiment_id: UUID | None
) -> str | None:
    if reference.scheme == "model":
        return f"model:{reference.value}@{_tree(model_directory(settings, reference.value))}"
    if reference.scheme == "data":
        return f"data:{reference.value}@{_tree(data_file(settings, reference.value))}"
    if reference.scheme == "dataset":
        dataset = dataset_version(session, reference.value)
        return None if dataset is None else f"dataset:{dataset.sha256}"
    if reference.scheme == "checkpoint-id":
        query = select(Checkpoint.manifest_sha256).where(Checkpoint.id == decode_id("ckpt", reference.value))
        return f"checkpoint:{session.scalar(query)}"
    job_id = source_job_id(session, reference, experiment_id)
    if job_id is None:  # a source that names its content itself
        return reference.value
    run = serving_run(session, job_id, seed)
    found = None if run is None else session.scalar(select(Run.content_hash).where(Run.id == run.run_id))
    return None if not found else f"run:{found}"


def _tree(place: Path) -> str:
    paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    stats = [(path.relative_to(place.parent).as_posix(), path.stat()) for path in paths]
    listed = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def finished_run(session: Session, settings: Settings, found_hash: str | None) -> Run | None:
    """The newest succeeded run of a content hash whose output is still there; never one that itself took it over."""
    if found_hash is None:
        return None
    query = (
        select(Run)
        .where(
            Run.content_hash == found_hash,
            Run.state == RunState.SUCCEEDED,
            Run.output_attempt > 0,
            Run.reused_run_id.is_(None),
        )
        .order_by(Run.id.desc())
        .with_for_update(read=True)  # what it left is not deleted before this transaction ends
    )
    for run in session.scalars(query):
        if "completions" in run.purged:  # an evaluation is its completions, too
            continue
        if not _was_deleted(session, run.id) and is_published(
            settings, run_directory(settings, run.id, run.output_attempt)
        ):
            return run
    return None


def _was_deleted(session: Session, run_id: UUID) -> bool:
    mine = (Checkpoint.run_id == run_id, Checkpoint.kind == "model", Checkpoint.deleted_at.is_not(None))
    return session.scalar(select(Checkpoint.id).where(*mine).limit(1)) is not None


def copy_results(session: Session, source: UUID, values: Mapping[str, Any]) -> None:
    """The results of a run once more, as those of the run that reuses it.

    Args:
        values: the columns that differ: `run_id`, `job_id`, `experiment_id`, `method`.
    """
    moment = database_time(session)
    columns = [column.name for column in Result.__table__.columns]
    rows = session.scalars(select(Result).where(Result.run_id == source).order_by(Result.id)).all()
    if rows:
        copies = [
            {**{name: getattr(row, name) for name in columns}, **values, "id": new_id(), "created_at": moment}
            for row in rows
        ]
        session.execute(insert(Result), copies)
