"""Backups: a consistent copy of the database and of every file, in one directory, restored on either engine.

The database is read in one snapshot, then the files are copied: they are at least as new as their rows. Rows are kept
as JSON Lines with the types of their columns, so that a backup of SQLite can be restored into PostgreSQL and the other
way round, and an old backup by a newer program: the schema is made as the backup's revision has it, then migrated.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from lco.manifest import MANIFEST, sync_directory, write_durably
from store.artifacts import below
from store.database import make_engine, migrate
from store.dumps import dump, is_empty, is_whole, load, make_schema
from store.models.notification import Delivery
from store.settings import Settings

VERSION = 1
_BLOCK = 1 << 20
_PARTIAL = ".partial-"
_DAY_SECONDS = 86_400

Say = Callable[[str], None]
"""Told what is under way."""


@dataclass(slots=True)
class Backup:
    """What a backup holds."""

    directory: Path
    num_rows: int = 0
    num_files: int = 0
    size_bytes: int = 0
    """Of the files, before what is shared with an earlier backup is counted once."""
    num_shared: int = 0
    """Files that are hard links to those of an earlier backup."""
    missing: list[str] = field(default_factory=list)
    """Directories that rows name and that were not there: removed meanwhile, or lost before."""


def back_up(settings: Settings, folder: Path, say: Say = lambda _: None) -> Backup:
    """Makes `folder/TIME/`, with a manifest that is written last; safe while the platform works.

    Files that an earlier backup in the same folder has, with equal size and time of change, are hard links to it.

    Raises:
        ValueError: the folder lies inside what is backed up, or the database has no schema.
        OSError: the folder cannot be written to.
    """
    folder = folder.absolute()
    for root in _roots(settings).values():
        if folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{folder} lies below {root}, which is backed up: choose another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_interrupted(folder)
    earlier = _newest(folder)
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    place = folder / f"{_PARTIAL}{name}-{secrets.token_hex(3)}"
    place.mkdir(mode=0o700)
    try:
        say("reading the database")
        tables, revision, named = dump(settings, place / "database")
        found = Backup(directory=place, num_rows=sum(table["num_rows"] for table in tables))
        files: dict[str, Any] = {}
        for root_name, root in _roots(settings).items():
            say(f"copying {root_name}")
            files.update(_copy_tree(root, place, root_name, earlier, found))
        key = settings.data_dir / "admin-key"
        if key.is_file():
            files["admin-key"] = _copied(key, place / "admin-key", "admin-key", None, found)
        found.missing = [path for path in named if not (place / "artifacts" / path).exists()]
        document = {"version": VERSION, "revision": revision, "made_at": name, "tables": tables, "files": files}
        write_durably(place / MANIFEST, json.dumps(document, indent=1, sort_keys=True).encode())
        final = folder / name
        while final.exists():  # two within one second
            final = folder / f"{name}-{secrets.token_hex(2)}"
        place.rename(final)
        sync_directory(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    found.directory = final
    return found


def restore(settings: Settings, source: Path, say: Say = lambda _: None) -> Backup:
    """Fills an empty platform from a backup: first every file, each checked, then the database in one transaction.

    Repeated after an interruption it goes on. Runs that were under way are queued again once their lease has passed,
    and continue from their newest checkpoint. Alerts that were still to be sent are not: they may have been.

    Raises:
        ValueError: the backup is damaged or newer than this program, or the platform is not empty.
    """
    document = _document(source)
    engine = make_engine(settings)
    try:
        if not is_empty(engine):
            raise ValueError("the database is not empty; restore into a new one (LCO_DATA_DIR, LCO_DATABASE_URL)")
        found = Backup(directory=source)
        say("copying files")
        for name, entry in document["files"].items():
            _restore_file(settings, source, name, entry)
            found.num_files += 1
            found.size_bytes += entry["size_bytes"]
        say("filling the database")
        make_schema(settings, document["revision"])
        found.num_rows = load(engine, source / "database", document["tables"])
    finally:
        engine.dispose()
    migrate(settings)
    _leave_alerts_unsent(settings)
    return found


def _leave_alerts_unsent(settings: Settings) -> None:
    """What was still to be delivered may have been by the platform that was backed up: a person sends it again."""
    engine = make_engine(settings)
    try:
        with engine.begin() as connection:
            pending = sa.update(Delivery).where(Delivery.status == "pending")
            connection.execute(pending.values(status="failed", finished_at=datetime.now(UTC)))
    finally:
        engine.dispose()


def verify(source: Path) -> list[str]:
    """What is wrong with a backup: files that are missing or differ. Empty where it is whole.

    Raises:
        ValueError: it has no readable manifest.
    """
    document = _document(source)
    entries = dict(document["files"])
    entries |= {f"database/{table['file']}": table for table in document["tables"]}
    return [name for name, entry in entries.items() if not is_whole(below(source, name), entry)]


def _roots(settings: Settings) -> dict[str, Path]:
    return {"artifacts": settings.artifacts, "models": settings.models, "data": settings.data}


def _forget_interrupted(folder: Path) -> None:
    """Removes what a killed backup left, once it is a day old: a younger one may be under way."""
    for place in folder.glob(f"{_PARTIAL}*"):
        if time.time() - place.stat().st_mtime > _DAY_SECONDS:
            shutil.rmtree(place, ignore_errors=True)


def _newest(folder: Path) -> dict[str, Any] | None:
    """The newest whole backup of a folder: where its files lie, and what its manifest says of them."""
    names = [p.parent for p in folder.glob(f"[0-9]*/{MANIFEST}")]
    for place in sorted(names, reverse=True):
        try:
            return {"place": place, "files": _document(place)["files"]}
        except ValueError:
            continue
    return None


def _document(source: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
        version = document["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source} is no backup: its {MANIFEST} cannot be read ({error})") from error
    if version != VERSION:
        raise ValueError(f"{source} is a backup of form {version}, this program reads form {VERSION}")
    return document


def _copy_tree(
    root: Path, place: Path, name: str, earlier: dict[str, Any] | None, found: Backup
) -> Iterator[tuple[str, Any]]:
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts) or path.is_symlink() or not path.is_file():
            continue  # what begins with a dot is being written
        entry_name = f"{name}/{relative.as_posix()}"
        try:
            yield entry_name, _copied(path, place / entry_name, entry_name, earlier, found)
        except FileNotFoundError:  # removed meanwhile: a rotated checkpoint
            continue


def _copied(path: Path, target: Path, name: str, earlier: dict[str, Any] | None, found: Backup) -> dict[str, Any]:
    status = path.stat()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = earlier["files"].get(name) if earlier else None
    entry: dict[str, Any]
    if before and before["size_bytes"] == status.st_size and before["mtime_ns"] == status.st_mtime_ns:
        assert earlier is not None
        target.hardlink_to(earlier["place"] / name)
        entry = before
        found.num_shared += 1
    else:
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as stream, target.open("xb") as copy:
            while block := stream.read(_BLOCK):
                digest.update(block)
                copy.write(block)
                size += len(block)
            copy.flush()
            os.fsync(copy.fileno())
        target.chmod(status.st_mode & 0o777)
        entry = {"sha256": digest.hexdigest(), "size_bytes": size, "mtime_ns": status.st_mtime_ns}
    found.num_files += 1
    found.size_bytes += entry["size_bytes"]
    return entry


def _restore_file(settings: Settings, source: Path, name: str, entry: dict[str, Any]) -> None:
    root_name, _, relative = name.partition("/")
    target = below(_roots(settings)[root_name], relative) if relative else settings.data_dir / "admin-key"
    if is_whole(target, entry):
        return
    if target.exists():
        raise ValueError(f"{target} is there already, and differs from the backup's")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    origin, temporary = below(source, name), target.with_name(f".{target.name}.restoring")
    try:
        shutil.copyfile(origin, temporary)
    except FileNotFoundError:
        raise ValueError(f"the backup is damaged: {name} is missing") from None
    if not is_whole(temporary, entry):
        temporary.unlink()
        raise ValueError(f"the backup is damaged: {name} differs from its manifest")
    temporary.chmod(origin.stat().st_mode & 0o777)
    os.utime(temporary, ns=(entry["mtime_ns"], entry["mtime_ns"]))
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.rename(target)
    sync_directory(target.parent)
