"""Data sets made of others: parts by the hash of a row's key, and the rows that a run published.

A row's part depends on its key alone: rows with one key are never on both sides of a split, and a later version of the
data set leaves every row where it was.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from store.artifacts import dataset_file, published_files
from store.errors import Invalid, NotFound
from store.ids import encode_id
from store.models.dataset import Dataset
from store.repositories.datasets import Datasets
from store.repositories.runs import Runs
from store.settings import Settings
from store.uploads import Rows, incoming_folder, keep_rows


def part_of(key: str, fractions: Mapping[str, float]) -> str | None:
    """The part that a key falls into: SHA-256 as a number in [0, 1) against the running sums of the fractions.

    Args:
        fractions: name -> share of the keys, in order; their sum is at most 1. None is the rest.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    end = 0.0
    for name, fraction in fractions.items():
        end += fraction
        if place < end:
            return name
    return None


def split_rows(
    settings: Settings, dataset: Dataset, fractions: Mapping[str, float], key: str | None
) -> dict[str, Rows]:
    """The rows of each part of a data set, kept.

    Args:
        key: the field whose value is a row's key; None takes the whole row.

    Raises:
        Invalid: a row lacks the field, or a part has no row.
    """
    try:
        source = dataset_file(settings, dataset)
    except ValueError:
        raise NotFound("file of the data set", dataset.path) from None
    with ExitStack() as stack:
        folder = incoming_folder(settings)
        streams = {
            name: stack.enter_context(tempfile.NamedTemporaryFile(dir=folder, suffix=".part")) for name in fractions
        }
        with source.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                part = part_of(_key(line, number, key), fractions)
                if part is not None:
                    streams[part].write(line)
        found = {}
        for name, stream in streams.items():
            stream.flush()
            if stream.tell() == 0:
                raise Invalid(
                    f"/parts/{name}", f"no row falls into this part: {fractions[name]:g} of {dataset.num_rows}"
                )
            found[name] = keep_rows(settings, Path(stream.name), "jsonl")
    return found


def add_parts(
    session: Session, dataset: Dataset, parts: Mapping[str, Rows], fractions: Mapping[str, float], key: str | None
) -> list[Dataset]:
    """A data set `NAME-PART` for each part, in the caller's transaction; equal rows as before add no version."""
    found = []
    for name, rows in parts.items():
        origin = {
            "kind": "split",
            "dataset": f"dataset:{dataset.name}@{dataset.version}",
            "part": name,
            "fraction": fractions[name],
            "key": key,
        }
        found.append(Datasets(session).add_version(f"{dataset.name}-{name}", "jsonl", rows, origin)[0])
    return found


def published_rows(session: Session, settings: Settings, run_id: UUID, output: str) -> tuple[Rows, dict[str, Any]]:
    """The rows of a published JSON Lines file of a run, kept, and where they come from.

    Raises:
        NotFound: there is no such run or file.
        Invalid: the file is no JSON Lines.
    """
    run = Runs(session).get(run_id)
    place = published_files(settings, run.reused_run_id or run_id, run.output_attempt).get(output)
    if place is None:
        raise NotFound("published file", output)
    if place.suffix != ".jsonl":
        raise Invalid("/output", f"{output} is no file of rows")
    return keep_rows(settings, place, "jsonl"), {"kind": "run", "run": encode_id("run", run_id), "output": output}


def _key(line: bytes, number: int, field: str | None) -> str:
    if field is None:
        return line.decode()
    row = json.loads(line)
    if field not in row:
        raise Invalid("/key", f"row {number} has no field {field!r}")
    return json.dumps(row[field], sort_keys=True, ensure_ascii=False)
