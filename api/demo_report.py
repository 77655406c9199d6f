"""`demo-report.json`: every number of an experiment, and the completions from which anyone can recompute it."""

import json
import platform
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from api.client import Client
from api.result_schemas import CompletionRead, ResultRead, TableRow
from api.schemas import RunRead
from lco.manifest import write_durably

_PACKAGES = ("lco-platform", "torch", "transformers", "tokenizers", "fastapi", "sqlalchemy", "celery", "pydantic")
_COMPLETION_FIELDS = (
    *("benchmark", "example_id", "decoding", "train_seed", "eval_seed"),
    *("prompt", "completion", "reference", "extracted", "verdict", "correct", "truncated"),
)


def write_report(client: Client, experiment: str, path: Path) -> dict[str, Any]:
    """Writes the report of a finished experiment, its completions beside it, and returns it.

    Args:
        experiment: the experiment's id.
        path: the report's file; completions go to a directory of the same name without the ending.
    """
    results = list(client.results(experiment=experiment, order="asc"))
    completions = path.with_suffix("") / experiment
    completions.mkdir(parents=True, exist_ok=True)
    for run in sorted({result.run_id for result in results}):
        method = next(result.method for result in results if result.run_id == run)
        _write_completions(client.completions(run), completions, method)
    runs = list(client.runs(experiment=experiment, order="asc"))
    report = {
        "experiment": experiment,
        "rows": [_row(result, completions, path.parent) for result in results],
        "table": [_cell(row) for row in client.results_table(experiment=experiment).rows],
        "seconds": stage_seconds(runs),
        "versions": versions(),
    }
    write_durably(path, json.dumps(report, indent=1, allow_nan=False).encode() + b"\n")
    return report


def stage_seconds(runs: list[RunRead]) -> dict[str, float]:
    """Wall time of every job from its first start to its last end, and of all together as `total`."""
    by_job: dict[str, list[RunRead]] = {}
    for run in runs:
        if run.started_at is not None and run.finished_at is not None:
            by_job.setdefault(run.job_name, []).append(run)
    if not by_job:
        return {}
    spans = {name: _span(of_job) for name, of_job in by_job.items()}
    return {**spans, "total": _span([run for of_job in by_job.values() for run in of_job])}


def versions() -> dict[str, str]:
    """What made the numbers: Python and the packages that matter."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _span(runs: list[RunRead]) -> float:
    first = min(run.started_at for run in runs if run.started_at is not None)
    last = max(run.finished_at for run in runs if run.finished_at is not None)
    return round((last - first).total_seconds(), 3)


def _file_name(method: str, benchmark: str, decoding: str, train_seed: int, eval_seed: int | None) -> str:
    seeds = f"train{train_seed}" + ("" if eval_seed is None else f"-eval{eval_seed}")
    return f"{method}.{benchmark}.{decoding}.{seeds}.jsonl"


def _write_completions(completions: Iterable[CompletionRead], directory: Path, method: str) -> None:
    """One file per benchmark, decoding and seeds: what is behind one row."""
    with ExitStack() as stack:
        streams: dict[str, TextIO] = {}
        for completion in completions:
            name = _file_name(
                method, completion.benchmark, completion.decoding, completion.train_seed, completion.eval_seed
            )
            if name not in streams:
                streams[name] = stack.enter_context((directory / name).open("w", encoding="utf-8"))
            line = {field: getattr(completion, field) for field in _COMPLETION_FIELDS}
            streams[name].write(json.dumps(line, ensure_ascii=False) + "\n")


def _row(result: ResultRead, completions: Path, base: Path) -> dict[str, Any]:
    name = _file_name(result.method, result.benchmark, result.decoding, result.train_seed, result.eval_seed)
    fields = ("method", "train_seed", "eval_seed", "decoding", "benchmark", "metric", "value", "num_examples")
    return {
        **{field: getattr(result, field) for field in fields},
        "num_unscored": result.num_unscored,
        "completions": (completions / name).relative_to(base).as_posix(),
    }


def _cell(row: TableRow) -> dict[str, Any]:
    fields = ("method", "benchmark", "metric", "decoding", "mean", "std", "n", "missing_seeds", "std_over_eval_seeds")
    return {field: getattr(row, field) for field in fields}
