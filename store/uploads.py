"""Uploaded rows: read from JSON Lines, CSV or Parquet, checked one by one, kept as JSON Lines under their hash."""

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from store.disk import refuse_when_full
from store.errors import InvalidRows, RowProblem
from store.objects import DATA, object_store
from store.settings import Settings

Format = Literal["jsonl", "csv", "parquet"]
FOLDER = "datasets"
"""Below the data root."""
MAX_ROW_BYTES = 1 << 20
MAX_COLUMNS = 256
MAX_NAME_CHARACTERS = 128
MAX_DEPTH = 16
MAX_PROBLEMS = 20
"""Wrong rows after which a file is read no further."""
_BATCH_ROWS = 256
csv.field_size_limit(MAX_ROW_BYTES)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as they are kept."""

    sha256: str
    path: str
    """Relative to the data root."""
    num_rows: int
    size_bytes: int
    columns: list[str]


def incoming_folder(settings: Settings) -> Path:
    """Where uploads lie until they are checked; inputs cannot name what begins with a dot."""
    folder = settings.data / FOLDER / ".incoming"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def keep_rows(
    settings: Settings,
    upload: Path,
    form: Format,
    text_fields: Sequence[str] = (),
    admit: Callable[[Rows], None] = lambda rows: None,
) -> Rows:
    """Checks every row of an upload and keeps them; equal rows are kept once.

    Args:
        text_fields: fields that must hold text, which is not empty, in every row.
        admit: told what is about to be kept; what it raises leaves nothing behind.

    Raises:
        InvalidRows: the file or some of its rows are wrong; names the first of them by number.
        Full: the disk is.
        StoreUnavailable: the object store did not take them.
    """
    refuse_when_full(settings)
    problems: list[RowProblem] = []
    columns: dict[str, None] = {}
    digest = hashlib.sha256()
    num_rows = size_bytes = 0
    handle, name = tempfile.mkstemp(dir=incoming_folder(settings), suffix=".jsonl")
    kept = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            for number, row in read_rows(upload, form):
                found = row if isinstance(row, str) else _complaint(row, text_fields, columns)
                if found is None and isinstance(row, dict):
                    line = _encoded(row)
                    found = line if isinstance(line, str) else None
                    if isinstance(line, bytes):
                        digest.update(line)
                        stream.write(line)
                        num_rows += 1
                        size_bytes += len(line)
                if found is not None:
                    problems.append(RowProblem(number, found))
                if len(problems) == MAX_PROBLEMS:
                    break
                if size_bytes > settings.dataset_max_bytes:
                    raise InvalidRows(
                        [RowProblem(number, f"the rows so far exceed {settings.dataset_max_bytes} bytes")]
                    )
            stream.flush()
            os.fsync(stream.fileno())
        if not num_rows and not problems:
            problems.append(RowProblem(0, "the file has no rows"))
        if problems:
            raise InvalidRows(problems)
        relative = f"{FOLDER}/{digest.hexdigest()}.jsonl"
        rows = Rows(digest.hexdigest(), relative, num_rows, size_bytes, list(columns))
        admit(rows)
        kept.chmod(0o640)
        kept.replace(settings.data / relative)
        if (store := object_store(settings)) is not None:
            store.put(settings.data / relative, f"{DATA}/{relative}")
    finally:
        kept.unlink(missing_ok=True)
    return rows


def read_rows(path: Path, form: Format) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Row numbers (from 1; 0 for the file itself) and rows; in place of a row that cannot be read, what is wrong."""
    return {"jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}[form](path)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                yield number, f"the row is longer than {MAX_ROW_BYTES} bytes"
                return  # where the next row begins is not known
            if not line.strip():
                continue
            yield number, _json_row(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _json_row(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        return "the row is not UTF-8"
    except _RepeatedKeyError:
        return "an object has the same key twice"
    except (ValueError, RecursionError):
        return "the row is no JSON"
    return row if isinstance(row, dict) else "the row is no JSON object"


class _RepeatedKeyError(Exception):
    """An object has the same key twice: readers would differ in what it says."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _RepeatedKeyError
    return row


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    number = 0
    with path.open("rb") as stream:
        lines = (line.decode("utf-8-sig" if not position else "utf-8") for position, line in enumerate(stream))
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            if not header or len(set(header)) != len(header) or not all(header):
                yield 0, "the first line must name every column, each differently"
                return
            for cells in reader:
                number += 1
                if not cells:
                    yield number, "the row is empty"
                elif len(cells) != len(header):
                    yield number, f"the row has {len(cells)} cells, the first line {len(header)}"
                else:
                    yield number, dict(zip(header, cells, strict=True))
        except UnicodeDecodeError:
            yield number + 1, "the row is not UTF-8"
        except csv.Error:
            yield number + 1, "the row is no CSV: a quote is not closed or stands wrongly, or a cell is too long"


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        yield 0, "this server reads no Parquet: install lco-platform[parquet]"
        return
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as source:
            for batch in source.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError):
        yield number + 1, "the row cannot be read; the file is no Parquet, or damaged"


def _complaint(row: dict[str, Any], text_fields: Sequence[str], columns: dict[str, None]) -> str | None:
    """What is wrong with a row; its columns join those known."""
    for name in row:
        if name not in columns:
            if not name or len(name) > MAX_NAME_CHARACTERS or not name.isprintable():
                return f"a field's name must be printable and have 1 to {MAX_NAME_CHARACTERS} characters"
            if len(columns) == MAX_COLUMNS:
                return f"the rows have more than {MAX_COLUMNS} different fields"
            columns[name] = None
    for name in text_fields:
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"the field {name} must hold text that is not empty"
    return "the row is nested too deeply" if _is_deep(row, MAX_DEPTH) else None


def _is_deep(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_is_deep(inner, levels - 1) for inner in value)


def _encoded(row: dict[str, Any]) -> bytes | str:
    """The row as a line of JSON; or what is wrong with it."""
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain).encode() + b"\n"
    except UnicodeEncodeError:
        return "a text holds half of a surrogate pair"
    except TypeError:
        return "a value is neither text, number, truth value, date, list nor object"
    except ValueError:
        return "a number is not finite, or has thousands of digits"
    return line if len(line) <= MAX_ROW_BYTES else f"the row is longer than {MAX_ROW_BYTES} bytes"


def _plain(value: Any) -> str:
    """What Parquet has and JSON has not, as text."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError
