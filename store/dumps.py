"""Every row of the database as JSON Lines with the types of their columns, and back into either engine."""

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine

from store.database import make_engine, migrate
from store.models.base import UtcDateTime
from store.models.tables import Base
from store.settings import Settings

_LEFT_OUT = frozenset({"sessions", "workers"})
"""Tables of what is alive now: browser sessions, worker processes."""
_BATCH = 500

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


def dump(settings: Settings, folder: Path) -> tuple[list[dict[str, Any]], str, list[str]]:
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
                named = list(
                    connection.scalars(
                        sa.select(checkpoints.c.path).where(is_kept(checkpoints), checkpoints.c.kind == "model")
                    )
                )
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


def is_empty(engine: Engine) -> bool:
    """Whether there is no schema, or one without an experiment, a job or a data set."""
    with engine.connect() as connection:
        existing = set(sa.inspect(connection).get_table_names())
        counted = [table for table in ("experiments", "jobs", "datasets") if table in existing]
        return all(connection.scalar(sa.select(sa.exists().select_from(sa.table(name)))) is False for name in counted)


def make_schema(settings: Settings, revision: str) -> None:
    """The empty schema of a revision, whatever empty one was there.

    Raises:
        ValueError: this program does not know the revision.
    """
    try:
        migrate(settings, "base")
        migrate(settings, revision)
    except Exception as error:
        if "locate revision" in str(error):
            raise ValueError(f"the backup is of revision {revision}, which this program does not know yet") from error
        raise


def load(engine: Engine, folder: Path, tables: list[dict[str, Any]]) -> int:
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
    if not is_whole(path, stated):
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


def is_whole(path: Path, entry: dict[str, Any]) -> bool:
    """Whether a file has the size and the hash that a manifest says of it."""
    if not path.is_file() or path.stat().st_size != entry["size_bytes"]:
        return False
    with path.open("rb") as stream:
        return bool(hashlib.file_digest(stream, "sha256").hexdigest() == entry["sha256"])
