"""Manifests: what a finished directory holds. Written last, so that its existence means the rest is there. No torch."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A verified directory."""

    directory: Path
    step: int
    """Optimizer steps behind the contents."""
    outputs: dict[str, str]
    """Role -> path relative to the directory: `model`, `pairs`, `results`, `completions`, `score`, `rows`."""
    sha256: str
    """Of the manifest file itself, which names the hash of every other file."""
    size_bytes: int
    """Of all files together."""
    details: dict[str, Any]
    """What else the writer stated, such as `beta_dpo`."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a file so that after a crash it is either absent, the old one, or whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def write_manifest(directory: Path, *, step: int, outputs: dict[str, str], include: list[str], **details: Any) -> None:
    """Makes every included file durable, then writes the directory's manifest.

    Args:
        include: files and directories, relative to `directory`; directories are taken whole.
        details: anything else a reader of the directory needs, as JSON.
    """
    files = {}
    for name in include:
        place = directory / name
        for path in sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]:
            with path.open("rb+") as stream:
                os.fsync(stream.fileno())
            files[path.relative_to(directory).as_posix()] = {
                "sha256": file_sha256(path),
                "size_bytes": path.stat().st_size,
            }
    document = {"version": 1, "step": step, "outputs": outputs, "details": details, "files": files}
    write_durably(directory / MANIFEST, json.dumps(document, indent=1, sort_keys=True).encode())


def read_manifest(directory: Path, *, is_checked: bool = True) -> Manifest:
    """The manifest of a directory after every file was checked against it.

    Args:
        is_checked: False believes the manifest: for a look at what there is.

    Raises:
        ValueError: there is no manifest, or a file is missing or differs; the message names it.
    """
    path = directory / MANIFEST
    try:
        content = path.read_bytes()
        document = json.loads(content)
        files = document["files"]
        for name, entry in files.items() if is_checked else ():
            place = directory / name
            if not place.is_file() or place.stat().st_size != entry["size_bytes"]:
                raise ValueError(f"{directory}: {name} is missing or has another size than its manifest says")
            if file_sha256(place) != entry["sha256"]:
                raise ValueError(f"{directory}: {name} differs from its manifest")
        return Manifest(
            directory=directory,
            step=document["step"],
            outputs=document["outputs"],
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=sum(entry["size_bytes"] for entry in files.values()),
            details=document["details"],
        )
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{directory}: no readable manifest ({error})") from error


def read_files(directory: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of each file that a directory's manifest names, as it states them.

    Raises:
        ValueError: there is no readable manifest.
    """
    try:
        files: dict[str, dict[str, Any]] = json.loads((directory / MANIFEST).read_bytes())["files"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{directory}: no readable manifest ({error})") from error
    return files


def step_order(path: Path) -> tuple[int, str]:
    """Sorts `step-NNNNNN` directories by step: zero-padded names, longer ones later."""
    return len(path.name), path.name


def newest_checkpoint(run_directories: list[Path]) -> Manifest | None:
    """The verified `checkpoints/step-*` with the most steps below any of the directories, damaged ones passed over."""
    candidates = [
        path for directory in run_directories for path in directory.glob("checkpoints/step-*") if path.is_dir()
    ]
    for path in sorted(candidates, key=step_order, reverse=True):
        try:
            return read_manifest(path)
        except ValueError:
            continue
    return None
