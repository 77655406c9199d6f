"""`lco datasets`: rows of one's own, which jobs name as `dataset:NAME`."""

import itertools
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from api import service_schemas
from api.client import Client
from api.commands.tables import print_json, print_table
from api.commands.usage import UsageError
from api.upload_formats import SUFFIXES

_LONGEST_CELL = 48


def upload(options: Namespace) -> int:
    """Uploads a file and prints what jobs name it by."""
    path = _local(options.file)
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path.name} ends in none of {', '.join(SUFFIXES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    origin = options.file if options.file.startswith("hub:") else path.name
    with Client() as client:
        found = client.upload_dataset(options.name, content, form, text_fields=options.text_fields, origin=origin)
    return _print(options, [found])


def _local(source: str) -> Path:
    """The file that is uploaded; one of a hub is downloaded first."""
    from evaluation.data import checked_source, locate

    try:
        return locate(checked_source(source))
    except ValueError as error:
        raise UsageError(str(error)) from None


def split(options: Namespace) -> int:
    """Splits a data set."""
    parts = {}
    for text in options.part:
        name, _, share = text.partition("=")
        try:
            parts[name] = float(share)
        except ValueError:
            raise UsageError(f"--part takes a name and a share such as train=0.9, not {text!r}") from None
    with Client() as client:
        found = client.split_dataset(client.dataset(options.dataset).id, parts, key=options.key)
    return _print(options, found)


def keep(options: Namespace) -> int:
    """Makes a data set of what a run published."""
    with Client() as client:
        output = options.output or _only_output(client, options.id)
        return _print(options, [client.keep_output(options.id, output, options.name)])


def _only_output(client: Client, run: str) -> str:
    names = [output.name for output in client.outputs(run) if output.media_type == "application/jsonl"]
    if len(names) != 1:
        raise UsageError(f"{run} has published {', '.join(names) or 'no rows'}: name one with --output")
    return names[0]


def _print(options: Namespace, found: Sequence[service_schemas.DatasetRead]) -> int:
    if options.json:
        return print_json(found if len(found) > 1 else found[0])
    for dataset in found:
        print(f"{dataset.source}  {dataset.num_rows} rows, {', '.join(dataset.columns)}")
    return 0


def list_datasets(options: Namespace) -> int:
    """Lists versions of data sets."""
    with Client() as client:
        found = list(itertools.islice(client.datasets(name=options.name), options.limit))
    if options.json:
        return print_json(found)
    rows = [[item.id, item.source, item.num_rows, _size(item.size_bytes), item.created_at] for item in found]
    return print_table(["id", "source", "rows", "size", "created"], rows)


def show(options: Namespace) -> int:
    """Prints one version as JSON."""
    with Client() as client:
        return print_json(client.dataset(options.dataset))


def preview(options: Namespace) -> int:
    """Prints some rows."""
    with Client() as client:
        dataset = client.dataset(options.dataset)
        rows = list(itertools.islice(client.dataset_rows(dataset.id, after=options.after), options.limit))
    if options.json:
        return print_json(rows)
    return print_table(["#", *dataset.columns], [_cells(row, dataset.columns) for row in rows])


def _cells(row: service_schemas.DatasetRow, columns: list[str]) -> list[object]:
    texts = [_text(row.fields[name]) if name in row.fields else "" for name in columns]
    return [row.number, *(text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…" for text in texts)]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split())


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
