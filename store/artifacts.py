"""Run directories, and the paths behind a run's inputs.

A path comes from an id or a checked name, never from a client.
"""

import contextlib
import copy
import logging
import os
import shutil
import stat
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from lco.manifest import MANIFEST, read_manifest
from store.budgets import capped
from store.claims import Claim
from store.confinement import confine
from store.errors import Invalid, NotFound
from store.ids import decode_id, encode_id
from store.models.dataset import Dataset
from store.models.record import Checkpoint
from store.naming import dataset_version
from store.objects import DATA, is_here, object_store
from store.settings import Settings
from store.sources import ServingRun, serving_run, source_job_id, spec_of
from store.specs import Reference, references, replaced
from store.tombstones import absent

RUNS = "runs"
"""Below the artifact root: one directory a run, in it one an attempt."""
REMOVED = ".removed"
"""Ends the hidden name of a directory that is being removed."""

logger = logging.getLogger(__name__)


def run_directory(settings: Settings, run_id: UUID, attempt: int) -> Path:
    """Directory of one attempt: a zombie can only fill its own."""
    return settings.artifacts / RUNS / encode_id("run", run_id) / str(attempt)


def earlier_directories(settings: Settings, claim: Claim) -> list[Path]:
    """Existing directories of the run's earlier attempts, newest first; a newer checkpoint in the object store is
    fetched.

    Raises:
        StoreUnavailable: the object store does not answer.
    """
    store = object_store(settings)
    for attempt in claim.earlier_attempts if store is not None else ():
        assert store is not None
        directory = run_directory(settings, claim.run_id, attempt)
        newest = store.newest_checkpoint(relative_path(settings, directory))
        if newest is not None:
            store.fetch(settings.artifacts, artifact_path(settings, newest))
            break
    directories = (run_directory(settings, claim.run_id, attempt) for attempt in claim.earlier_attempts)
    return [directory for directory in directories if directory.is_dir()]


def relative_path(settings: Settings, path: Path) -> str:
    """The path relative to the artifact root, as rows keep it.

    Raises:
        ValueError: it is not below the artifact root.
    """
    return path.absolute().relative_to(settings.artifacts).as_posix()


def below(root: Path, relative: str) -> Path:
    """The path `relative` below `root`, by names alone.

    Raises:
        ValueError: it is absolute, empty, or has a `..`.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\x00" in relative:
        raise ValueError(f"{relative[:200]!r} is no path below a root")
    return root.joinpath(*path.parts)


def runs_path(run_id: UUID) -> str:
    """Directory of all attempts of a run, relative to the artifact root."""
    return f"{RUNS}/{encode_id('run', run_id)}"


def files_of(row: Checkpoint) -> list[str]:
    """What there is of a checkpoint, relative to the artifact root, in the order of removal; nothing of a local model.

    A published model's run directory is complete no longer once its manifest is gone: nobody takes it over then.
    """
    if row.run_id is None:
        return []
    manifest = f"{runs_path(row.run_id)}/{row.attempt}/{MANIFEST}"
    return [manifest, row.path] if row.kind == "model" else [row.path]


def checkpoint_directory(settings: Settings, row: Checkpoint) -> Path:
    """Directory of a checkpoint's files, fetched from the object store where they are not here.

    Raises:
        ValueError: it was deleted, or the directory is gone.
        StoreUnavailable: the object store does not answer.
    """
    refuse_deleted(row)
    place = below(settings.models if row.run_id is None else settings.artifacts, row.path)
    if row.run_id is not None and not place.is_dir():
        is_here(settings, place if row.kind == "state" else place.parent)  # a model lies in its attempt's directory
    if not place.is_dir():
        raise ValueError(f"the directory of {encode_id('ckpt', row.id)} is gone")
    return place


def refuse_deleted(row: Checkpoint) -> None:
    """Refuses a checkpoint whose files were given up.

    Raises:
        ValueError: says when and why.
    """
    if row.deleted_at is not None:
        shown = encode_id("ckpt", row.id)
        raise ValueError(f"{shown} was deleted on {row.deleted_at:%Y-%m-%d}: {row.deleted_reason}")


def remove(settings: Settings, relative: str) -> int:
    """Removes a file or a directory of runs, here and from the object store; one that is gone already is fine. The
    bytes it took here.

    Raises:
        ValueError: the path is none below the directory of runs.
        OSError: it cannot be removed, or the object store does not answer.
    """
    place = below(settings.artifacts, relative)
    parts = PurePosixPath(relative).parts
    if parts[0] != RUNS or len(parts) < 2:
        raise ValueError(f"{relative[:200]!r} is nothing of a run")
    if (store := object_store(settings)) is not None:
        store.remove(relative)
    return remove_whole(place)


def remove_whole(place: Path) -> int:
    """Removes a file or a directory, to a reader at once; one that is gone already is fine. The bytes it took.

    Raises:
        OSError: it cannot be removed.
    """
    doomed = place if place.name.endswith(REMOVED) else place.with_name(f".{place.name}{REMOVED}")
    num_bytes = size_on_disk(doomed)  # of a removal that was ended half-way
    shutil.rmtree(doomed, ignore_errors=True)
    if place.is_dir() and not place.is_symlink():
        num_bytes += size_on_disk(place)
        with contextlib.suppress(FileNotFoundError):
            place.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
    elif os.path.lexists(place):
        num_bytes += place.lstat().st_size
        place.unlink(missing_ok=True)
    if os.path.lexists(doomed) or os.path.lexists(place):
        raise OSError(f"{place.name} cannot be removed")
    return num_bytes


def size_at(settings: Settings, relative: str) -> int:
    """Bytes of a file or directory below the artifact root; 0 where there is none."""
    place = below(settings.artifacts, relative)
    if place.is_dir():
        return size_on_disk(place)
    return place.lstat().st_size if os.path.lexists(place) else 0


def size_on_disk(place: Path) -> int:
    """Bytes of all files below a directory; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(place):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 - a hot loop
    return total


def artifact_path(settings: Settings, relative: str) -> Path:
    """Absolute path of what a row names relative to the artifact root.

    Raises:
        ValueError: it would lie elsewhere.
    """
    return below(settings.artifacts, relative)


def model_directory(settings: Settings, name: str) -> Path:
    """Directory of an imported model.

    Raises:
        ValueError: there is none of this name below the models root.
    """
    root = settings.models
    place = below(root, name)
    if not place.is_dir() or not place.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"there is no imported model {name!r}")
    return place


def data_file(settings: Settings, relative: str) -> Path:
    """A regular file below the data root, reached without following a symbolic link.

    Raises:
        ValueError: there is none.
    """
    root = settings.data
    *folders, name = below(root, relative).relative_to(root).parts
    refusal = f"there is no data file {relative!r} below the data root"
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ValueError(refusal) from error
    try:
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise ValueError(refusal)
    except OSError as error:
        raise ValueError(refusal) from error
    finally:
        os.close(folder)
    return root / relative


def dataset_file(settings: Settings, dataset: Dataset) -> Path:
    """The rows of a data set as JSON Lines, fetched from the object store where they are not here.

    Raises:
        ValueError: there is no such file, or it is damaged.
        StoreUnavailable: the object store does not answer.
    """
    store = object_store(settings)
    target = below(settings.data, dataset.path)
    if store is not None and not target.exists():
        temporary = target.with_name(f".{target.name}.{os.getpid()}.fetching")
        try:
            store.get(f"{DATA}/{dataset.path}", temporary)
            temporary.replace(target)
        except FileNotFoundError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    place = data_file(settings, dataset.path)
    if place.stat().st_size != dataset.size_bytes:
        raise ValueError(f"the file of {dataset.name}@{dataset.version} is damaged")
    return place


_ROLES = {"model": "model", "reward-model": "model", "data": "pairs", "completions": "completions"}
"""What an input needs -> the output of the job that it names."""


def published_output(settings: Settings, run_id: UUID, attempt: int, role: str) -> Path:
    """A finished run's output, after every file of its directory was checked against its manifest.

    Args:
        attempt: the run's `output_attempt`.
        role: `model`, `pairs`, `results`, `completions`, `score` or `rows`.

    Raises:
        ValueError: nothing is published, the directory is damaged, or it has no such output.
        StoreUnavailable: the object store does not answer.
    """
    if attempt == 0:
        raise ValueError(f"{encode_id('run', run_id)} has published nothing")
    directory = run_directory(settings, run_id, attempt)
    is_here(settings, directory)
    manifest = read_manifest(directory)
    if role not in manifest.outputs:
        raise ValueError(f"{encode_id('run', run_id)} has no output {role!r}")
    return below(directory, manifest.outputs[role])


def published_files(settings: Settings, run_id: UUID, attempt: int) -> dict[str, Path]:
    """Role -> file of a finished run's outputs that are files, without a look into them; empty where none is published
    or the run's directory is gone.
    """
    directory = run_directory(settings, run_id, attempt)
    if attempt == 0 or not is_here(settings, directory):
        return {}
    outputs = read_manifest(directory, is_checked=False).outputs
    places = {role: below(directory, relative) for role, relative in outputs.items()}
    return {role: place for role, place in places.items() if place.is_file() and not place.is_symlink()}


def resolve_reference(
    session: Session, settings: Settings, reference: Reference, *, seed: int, experiment_id: UUID | None
) -> Path:
    """The absolute path behind an input.

    Raises:
        ValueError: what it names is absent, unfinished or damaged.
        NotFound: the job or checkpoint does not exist.
    """
    if reference.scheme == "model":
        return model_directory(settings, reference.value)
    if reference.scheme == "data":
        return data_file(settings, reference.value)
    if reference.scheme == "dataset":
        dataset = dataset_version(session, reference.value)
        if dataset is None:
            raise NotFound("data set", reference.value)
        return dataset_file(settings, dataset)
    if reference.scheme == "checkpoint-id":
        row = session.get(Checkpoint, decode_id("ckpt", reference.value))
        if row is None:
            raise absent(session, "checkpoint", decode_id("ckpt", reference.value))
        return checkpoint_directory(settings, row)
    job_id = source_job_id(session, reference, experiment_id)
    assert job_id is not None, reference
    run = serving_run(session, job_id, seed)
    if run is None:
        raise ValueError(f"job {reference.value} has no run of seed {seed}")
    refuse_deleted_output(session, run)
    return published_output(settings, run.id, run.output_attempt, _ROLES[reference.source])


def refuse_deleted_output(session: Session, run: ServingRun) -> None:
    """Refuses a run whose published model was deleted since.

    Raises:
        ValueError: says when and why.
    """
    published = (Checkpoint.run_id == run.id, Checkpoint.attempt == run.output_attempt, Checkpoint.kind == "model")
    for row in session.scalars(select(Checkpoint).where(*published, Checkpoint.deleted_at.is_not(None)).limit(1)):
        refuse_deleted(row)


def inputs_elsewhere(session: Session, settings: Settings, claim: Claim) -> list[Path | Dataset]:
    """What of the run's inputs may have to be fetched: directories with a manifest, data sets. Empty without an object
    store. Bring them here with `bring`, outside of a transaction: they may be large.
    """
    if not settings.artifact_store:
        return []
    found: list[Path | Dataset] = []
    for reference in references(spec_of(claim.spec).config):
        if reference.scheme == "dataset" and (dataset := dataset_version(session, reference.value)) is not None:
            found.append(dataset)
        elif reference.scheme == "checkpoint-id":
            row = session.get(Checkpoint, decode_id("ckpt", reference.value))
            if row is not None and row.run_id is not None:
                found.append(artifact_path(settings, row.path).parent)
        elif (job_id := source_job_id(session, reference, claim.experiment_id)) is not None:
            run = serving_run(session, job_id, claim.seed)
            if run is not None and run.output_attempt:
                found.append(run_directory(settings, run.id, run.output_attempt))
    return found


def bring(settings: Settings, needed: Path | Dataset) -> None:
    """Fetches an input from the object store where it is not here; what is nowhere is left to who reads it.

    Raises:
        StoreUnavailable: the object store does not answer.
    """
    try:
        dataset_file(settings, needed) if isinstance(needed, Dataset) else is_here(settings, needed)
    except ValueError as error:
        logger.warning("%s", error)  # the same error is the run's, with the input's pointer, when it is resolved


def resolved_config(session: Session, settings: Settings, claim: Claim) -> dict[str, Any]:
    """What the run's process reads: the spec's config with the run's seed and a path in place of every reference.

    Raises:
        Invalid: an input is absent or damaged; names its pointer.
    """
    confine(session, claim.project_id)
    spec = spec_of(claim.spec)
    document = copy.deepcopy(claim.spec["config"])
    assert isinstance(document, dict)
    document["seed"] = claim.seed
    for reference in references(spec.config):
        try:
            path = resolve_reference(session, settings, reference, seed=claim.seed, experiment_id=claim.experiment_id)
        except (ValueError, NotFound) as error:
            raise Invalid("/config/" + "/".join(reference.pointer), str(error)) from error
        replaced(document, reference.pointer, str(path))
    return capped(session, document, spec, claim.job_id)
