"""What lies below the platform's roots and belongs to nothing: directories without a row, files never finished."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from store.artifacts import REMOVED, RUNS, size_on_disk
from store.ids import decode_id
from store.settings import Settings
from store.uploads import FOLDER

_TEMPORARY = ".tmp"
_FETCHING = ".fetching"
"""Stands in the hidden name of what is on its way from the object store."""
Known = Callable[[list[UUID]], dict[UUID, dict[int, bool]]]
"""Ids -> for each run that has a row its attempts, and whether each has ended."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A directory or file that can go."""

    kind: str
    """`directory` (no row has it) or `temporary` (never finished)."""
    place: Path
    subject: str
    """Below its root, for a person."""
    size_bytes: int
    reason: str
    run_id: UUID | None = None
    """The run whose directory it is, or is in."""
    attempt: int | None = None


def leftovers(settings: Settings, known: Known) -> Iterator[Leftover]:
    """Everything that is older than the grace, by the times of the files themselves; the roots may be missing."""
    border = time.time() - settings.gc_grace_hours * 3600
    yield from _of_runs(settings.artifacts, border, known)
    incoming = settings.data / FOLDER / ".incoming"
    for place in _entries(incoming):
        if _is_old(place, border):
            yield _temporary(place, f"{FOLDER}/.incoming/{place.name}", "an upload that was never finished")
    for place in _entries(settings.data / FOLDER):
        if place.name.startswith(".") and place.name.endswith(_FETCHING) and _is_old(place, border):
            yield _temporary(place, f"{FOLDER}/{place.name}", "a copy that was never finished")
    for place in _entries(settings.models):
        if place.name.startswith(".") and place.is_dir() and _is_old(place, border):
            yield _temporary(place, f"models/{place.name}", "an import that was never finished")


def _of_runs(root: Path, border: float, known: Known) -> Iterator[Leftover]:
    found: dict[UUID, Path] = {}
    for place in _entries(root / RUNS):
        if place.name.startswith(".") and place.name.endswith(REMOVED):
            yield _temporary(place, f"{RUNS}/{place.name}", "a removal that was never finished")
        elif (run_id := _run_of(place.name)) is not None:
            found[run_id] = place
    rows = known(list(found))
    for run_id, place in found.items():
        attempts = rows.get(run_id)
        if attempts is None:
            if _is_old(place, border):
                reason = "no run has it"
                yield Leftover("directory", place, f"{RUNS}/{place.name}", size_on_disk(place), reason, run_id)
            continue
        for inner in _entries(place):
            if inner.name.startswith(".") and _FETCHING in inner.name and _is_old(inner, border):
                yield _temporary(inner, f"{RUNS}/{place.name}/{inner.name}", "a copy that was never finished")
            if inner.name.isdecimal():
                yield from _of_attempt(inner, run_id, attempts.get(int(inner.name)), border)


def _of_attempt(place: Path, run_id: UUID, has_ended: bool | None, border: float) -> Iterator[Leftover]:
    """Args: has_ended: None where there is no such attempt."""
    subject = f"{RUNS}/{place.parent.name}/{place.name}"
    n = int(place.name)
    if has_ended is None:
        if _is_old(place, border):
            yield Leftover("directory", place, subject, size_on_disk(place), "no attempt has it", run_id, n)
        return
    if not has_ended:
        return
    for folder in (place, place / "checkpoints"):
        for inner in _entries(folder):
            is_unfinished = inner.name.endswith((_TEMPORARY, REMOVED)) or _FETCHING in inner.name
            is_hidden = inner.name.startswith(".") and is_unfinished
            if is_hidden and _is_old(inner, border):
                here = f"{subject}/{inner.relative_to(place).as_posix()}"
                yield Leftover(
                    "temporary", inner, here, _size(inner), "its writer ended before it was whole", run_id, n
                )


def _temporary(place: Path, subject: str, reason: str) -> Leftover:
    return Leftover("temporary", place, subject, _size(place), reason)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(place: Path) -> int:
    try:
        return size_on_disk(place) if place.is_dir() and not place.is_symlink() else place.lstat().st_size
    except OSError:
        return 0


def _is_old(place: Path, border: float) -> bool:
    """Whether neither it nor what stands directly in it was changed since."""
    try:
        times = [place.lstat().st_mtime]
        if place.is_dir() and not place.is_symlink():
            times += [inner.lstat().st_mtime for inner in place.iterdir()]
    except OSError:
        return False
    return max(times) < border


def _run_of(name: str) -> UUID | None:
    try:
        return decode_id("run", name)
    except ValueError:
        return None
