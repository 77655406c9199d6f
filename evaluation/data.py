"""Rows of a data set: from a local file or from one file of a hub repository at a pinned revision. No torch.

Nothing of a data set is ever run: a hub source names one data file, which is downloaded and read here.
`HF_HUB_OFFLINE=1` is respected: then only what was downloaded before is found.
"""

import csv
import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.config import HUB
from lco.prompts import read_jsonl

_HUB = re.compile(
    r"hub:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})/(?P<path>[^/\x00-\x1f]+(?:/[^/\x00-\x1f]+)*)",
    re.ASCII,
)
MAX_ROW_BYTES = MAX_FIELD_CHARACTERS = 1 << 26
"""Of what is graded, too: the output of a model that does not stop can have megabytes."""
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file."""

    number: int
    """From 1; in JSON Lines the number of the line, in CSV that of the record below the header."""
    fields: dict[str, Any]
    path: Path

    def text(self, field: str, *, default: str | None = None) -> str:
        """The row's text field, or the default where it is missing or null.

        Raises:
            ValueError: the field is no text, or missing without a default.
        """
        value = self.fields.get(field)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(f"has no text field {field!r}")
        return value

    def error(self, complaint: str) -> ValueError:
        """An error that names the file and the row."""
        return ValueError(f"{self.path}: row {self.number} {complaint}")


def locate(source: str) -> Path:
    """The local file that a source names: a path, or `hub:ORG/NAME@REVISION/PATH/IN/REPO`, which is downloaded.

    Args:
        source: REVISION is the 40 hexadecimal digits of a commit: a branch would change under the result.

    Raises:
        ValueError: the source has another form, or the file cannot be had.
    """
    if not source.startswith(HUB):
        return Path(source)
    match = _hub_parts(source)
    from huggingface_hub import hf_hub_download

    try:
        return Path(
            hf_hub_download(match["repository"], match["path"], repo_type="dataset", revision=match["revision"])
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ValueError(f"{source}: cannot be downloaded ({type(error).__name__}: {error})") from error


def checked_source(source: str) -> str:
    """A source as it is, once its form is known to be right: a hub source names a revision that cannot change.

    Raises:
        ValueError: it begins with `hub:` and has another form.
    """
    if source.startswith(HUB):
        _hub_parts(source)
    return source


def _hub_parts(source: str) -> re.Match[str]:
    match = _HUB.fullmatch(source)
    if match is None or ".." in match["path"].split("/"):
        raise ValueError(f"{source!r} is no hub source; write hub:ORG/NAME@<40-hex revision>/PATH/IN/REPO")
    return match


def find_file(directory: Path, names: Iterable[str]) -> Path:
    """The first of the names that is in the directory.

    Raises:
        ValueError: none is; the message lists them.
    """
    names = list(names)
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise ValueError(f"{directory} has none of {', '.join(names)}")


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, which its name tells how to read: JSON Lines, JSON, CSV (also .gz), or Parquet.

    Raises:
        ValueError: the file cannot be read; the message names the file, and the row where it is one row's fault.
    """
    suffix = next((suffix for suffix in reversed(SUFFIXES) if path.name.lower().endswith(suffix)), None)
    match suffix:
        case ".jsonl" | ".jsonl.gz":
            numbered: Iterable[tuple[int, dict[str, Any]]] = read_jsonl(path, max_row_bytes=MAX_ROW_BYTES)
        case ".json" | ".json.gz":
            numbered = _read_json(path)
        case ".csv" | ".csv.gz":
            numbered = _read_csv(path)
        case ".parquet":
            numbered = _read_parquet(path)
        case _:
            raise ValueError(f"{path}: ends in none of {', '.join(SUFFIXES)}")
    for number, fields in numbered:
        yield Row(number, fields, path)


def manifest_hash(rows: Iterable[Any]) -> str:
    """sha256 of the rows as canonical JSON, one a line: the same rows have the same hash from whatever kind of file.

    Raises:
        ValueError: a value is no JSON.
    """
    digest = hashlib.sha256()
    for row in rows:
        try:
            line = json.dumps(row, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        except TypeError as error:
            raise ValueError(f"a row is no JSON ({error})") from error
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.lower().endswith(".gz") else content
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzip file that was cut or damaged
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a JSON list; of an object, those of its only list (as `{"data": [...]}`)."""
    try:
        document = json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error})") from error
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else None
    if not isinstance(document, list):
        raise ValueError(f"{path}: is neither a list of rows nor an object with one")
    for number, row in enumerate(document, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number} is no JSON object")
        yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 ({error})") from error
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    number = 0
    try:
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise ValueError(f"{path}: row {number} has not {len(reader.fieldnames or ())} fields")
            yield number, row
    except csv.Error as error:
        raise ValueError(f"{path}: row {number + 1} is no CSV ({error})") from error


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet  # an extra
    except ImportError as error:
        raise ValueError(f"{path}: Parquet needs the extra `parquet` (pip install lco-platform[parquet])") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: _plain(value) for name, value in row.items()}
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _plain(value: Any) -> Any:
    """A Parquet value as JSON: no NaN, no bytes."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value
