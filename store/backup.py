"""Backups: a consistent copy of the database and of every file, in one directory, restored on either engine.

The database is read in one snapshot, then the files are copied: they are at least as new as their rows. Rows are kept
as JSON Lines with the types of their columns, so that a backup of SQLite can be restored into PostgreSQL and the other
way round, and an old backup by a newer program: the schema is made as the backup's revision has it, then migrated.
"""

import base64
import gzip
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
from uuid import UUID

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine

from lco.manifest import MANIFEST, sync_directory, write_durably
from store.artifacts import below
from store.database import make_engine, migrate
from store.models.base import UtcDateTime
from store.models.notification import Delivery
from store.models.tables import Base
from store.settings import Settings

VERSION = 1
_LEFT_OUT = frozenset({"sessions", "workers"})
"""Tables of what is alive now: browser sessions, worker processes."""
_BLOCK = 1 << 20
_BATCH = 500
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
        tables, revision, named = _dump(settings, place / "database")
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
        if not _is_empty(engine):
            raise ValueError("the database is not empty; restore into a new one (LCO_DATA_DIR, LCO_DATABASE_URL)")
        found = Backup(directory=source)
        say("copying files")
        for name, entry in document["files"].items():
            _restore_file(settings, source, name, entry)
            found.num_files += 1
            found.size_bytes += entry["size_bytes"]
        say("filling the database")
        _make_schema(settings, document["revision"])
        found.num_rows = _load(engine, source / "database", document["tables"])
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
    return [name for name, entry in entries.items() if not _is_whole(below(source, name), entry)]


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


# Files


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


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
        return False
    with path.open("rb") as stream:
        return bool(hashlib.file_digest(stream, "sha256").hexdigest() == entry["sha256"])


def _restore_file(settings: Settings, source: Path, name: str, entry: dict[str, Any]) -> None:
    root_name, _, relative = name.partition("/")
    target = below(_roots(settings)[root_name], relative) if relative else settings.data_dir / "admin-key"
    if _is_whole(target, entry):
        return
    if target.exists():
        raise ValueError(f"{target} is there already, and differs from the backup's")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    origin, temporary = below(source, name), target.with_name(f".{target.name}.restoring")
    try:
        shutil.copyfile(origin, temporary)
    except FileNotFoundError:
        raise ValueError(f"the backup is damaged: {name} is missing") from None
    if not _is_whole(temporary, entry):
        temporary.unlink()
        raise ValueError(f"the backup is damaged: {name} differs from its manifest")
    temporary.chmod(origin.stat().st_mode & 0o777)
    os.utime(temporary, ns=(entry["mtime_ns"], entry["mtime_ns"]))
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.rename(target)
    sync_directory(target.parent)


# Rows

_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "uuid": sa.Uuid(),
    "datetime": UtcDateTime(),
    "json": sa.JSON(none_as_null=True),
    "bool": sa.Boolean(),
    "int": sa.BigInteger(),
    "float": sa.Float(),
    "bytes": sa.LargeBinary(),
    "text": sa.String(),
}
"""What a manifest calls a column's type."""


def _type_name(column: sa.Column[Any]) -> str:
    kinds: list[tuple[str, type[Any]]] = [
        ("uuid", sa.Uuid),
        ("datetime", UtcDateTime),
        ("json", sa.JSON),
        ("bool", sa.Boolean),
        ("int", sa.Integer),
        ("float", sa.Float),
        ("bytes", sa.LargeBinary),
        ("text", sa.String),
    ]
    for name, kind in kinds:
        if isinstance(column.type, kind):
            return name
    raise TypeError(f"{column}: no backup of the type {column.type!r}")


def _to_json(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


_FROM_JSON: dict[str, Callable[[Any], Any]] = {
    "uuid": UUID,
    "datetime": datetime.fromisoformat,
    "bytes": base64.b64decode,
}


def _dump(settings: Settings, folder: Path) -> tuple[list[dict[str, Any]], str, list[str]]:
    """Every table in one snapshot: what the manifest says of them, the schema's revision, and the directories that
    rows of checkpoints name.
    """
    folder.mkdir(mode=0o700)
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                revision = MigrationContext.configure(connection).get_current_revision()
                if revision is None:
                    raise ValueError("the database has no schema: there is nothing to back up")
                existing = set(sa.inspect(connection).get_table_names())
                wanted = [table for table in Base.metadata.sorted_tables if table.name not in _LEFT_OUT]
                if missing := [table.name for table in wanted if table.name not in existing]:
                    raise ValueError(f"the database lacks {', '.join(missing)}: run `lco migrate` first")
                tables = [_dump_table(connection, table, folder) for table in wanted]
                checkpoints = Base.metadata.tables["checkpoints"]
                named = list(connection.scalars(sa.select(checkpoints.c.path).where(is_kept(checkpoints))))
    finally:
        engine.dispose()
    return tables, revision, named


def is_kept(checkpoints: sa.Table) -> sa.ColumnElement[bool]:
    """Rows whose files should exist below the artifact root."""
    return checkpoints.c.deleted_at.is_(None) & checkpoints.c.run_id.is_not(None)


def _dump_table(connection: Connection, table: sa.Table, folder: Path) -> dict[str, Any]:
    columns = [{"name": column.name, "type": _type_name(column)} for column in table.columns]
    query = sa.select(table).order_by(*table.primary_key.columns)
    rows = connection.execution_options(yield_per=_BATCH).execute(query)
    path = folder / f"{table.name}.jsonl.gz"
    num_rows = 0
    with path.open("xb") as stream:
        with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=3, mtime=0) as lines:
            for row in rows:
                values = [_to_json(value) for value in row]
                lines.write(json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
                num_rows += 1
        stream.flush()
        os.fsync(stream.fileno())
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {
        "name": table.name,
        "file": path.name,
        "columns": columns,
        "num_rows": num_rows,
        "sha256": digest,
        "size_bytes": path.stat().st_size,
    }


def _is_empty(engine: Engine) -> bool:
    """Whether there is no schema, or one without an experiment, a job or a data set."""
    with engine.connect() as connection:
        existing = set(sa.inspect(connection).get_table_names())
        counted = [table for table in ("experiments", "jobs", "datasets") if table in existing]
        return all(connection.scalar(sa.select(sa.exists().select_from(sa.table(name)))) is False for name in counted)


def _make_schema(settings: Settings, revision: str) -> None:
    try:
        migrate(settings, "base")
        migrate(settings, revision)
    except Exception as error:
        if "locate revision" in str(error):
            raise ValueError(f"the backup is of revision {revision}, which this program does not know yet") from error
        raise


def _load(engine: Engine, folder: Path, tables: list[dict[str, Any]]) -> int:
    """Inserts every row, in one transaction."""
    total = 0
    with engine.begin() as connection:
        for stated in reversed(tables):  # what the migrations put in stands in the backup, too
            connection.execute(sa.table(stated["name"]).delete())
        for stated in tables:
            columns = [sa.column(column["name"], _TYPES[column["type"]]) for column in stated["columns"]]
            table = sa.table(stated["name"], *columns)
            for batch in _batches(folder / stated["file"], stated):
                connection.execute(table.insert(), batch)
                total += len(batch)
    return total


def _batches(path: Path, stated: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    if not _is_whole(path, stated):
        raise ValueError(f"the backup is damaged: database/{path.name} differs from its manifest")
    names = [column["name"] for column in stated["columns"]]
    readers = [_FROM_JSON.get(column["type"], lambda value: value) for column in stated["columns"]]
    batch = []
    with gzip.open(path, "rb") as lines:
        for line in lines:
            values = json.loads(line)
            row = [None if value is None else read(value) for value, read in zip(values, readers, strict=True)]
            batch.append(dict(zip(names, row, strict=True)))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch
