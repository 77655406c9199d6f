"""The table of job kinds: the module that a run's process executes, and what becomes rows of the files it leaves."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from evaluation.records import content_key
from lco.manifest import Manifest
from store.artifacts import below, relative_path
from store.rows import CheckpointRow, Collected, CompletionRow, ResultRow
from store.settings import Settings


@dataclass(frozen=True, slots=True)
class Kind:
    """How runs of one kind are started and gathered in."""

    module: str
    """Run as `python -m MODULE CONFIG.json RUN_DIR`."""
    collect: Callable[[Settings, Manifest], Collected]
    """Rows from a finished, verified run directory. Raises ValueError when its files are not what the kind promises."""
    variables: Callable[[Settings], dict[str, str]] = lambda settings: {}
    """Variables that its process gets beside those that every run's has."""


class _Results(BaseModel):
    rows: list[ResultRow]
    configurations: dict[str, dict[str, Any]] = {}


_COMPLETION = TypeAdapter(CompletionRow)


def collect_model(settings: Settings, manifest: Manifest) -> Collected:
    """The published model: one checkpoint."""
    if "model" not in manifest.outputs:
        raise ValueError(f"{manifest.directory}: the manifest names no model")
    row = CheckpointRow(
        step=manifest.step,
        path=relative_path(settings, below(manifest.directory, manifest.outputs["model"])),
        manifest_sha256=manifest.sha256,
        size_bytes=manifest.size_bytes,
    )
    return Collected(models=[row])


def collect_nothing(settings: Settings, manifest: Manifest) -> Collected:
    """No rows: what is needed of the run is found through its published attempt."""
    return Collected()


def collect_results(settings: Settings, manifest: Manifest) -> Collected:
    """The evaluation's metrics, and every completion behind them, read while they are stored."""
    missing = {"results", "completions"} - manifest.outputs.keys()
    if missing:
        raise ValueError(f"{manifest.directory}: the manifest names no {', '.join(sorted(missing))}")
    results = _results(manifest)
    completions = below(manifest.directory, manifest.outputs["completions"])
    return Collected(results=results.rows, completions=_completions(completions), configurations=results.configurations)


def collect_score(settings: Settings, manifest: Manifest) -> Collected:
    """The figures; the graded rows stay a file."""
    if "results" not in manifest.outputs:
        raise ValueError(f"{manifest.directory}: the manifest names no results")
    results = _results(manifest)
    return Collected(results=results.rows, configurations=results.configurations)


def _results(manifest: Manifest) -> _Results:
    """The results, whose configurations are what their names say."""
    results = _Results.model_validate_json(below(manifest.directory, manifest.outputs["results"]).read_bytes())
    if wrong := [name for name, document in results.configurations.items() if content_key(**document) != name]:
        raise ValueError(f"{manifest.directory}: the configuration {wrong[0][:200]} is not the hash of what it says")
    if unknown := {row.configuration for row in results.rows} - {"", *results.configurations}:
        raise ValueError(f"{manifest.directory}: the results name no configuration {', '.join(sorted(unknown))[:200]}")
    return results


def _completions(path: Path) -> Iterator[CompletionRow]:
    with path.open("rb") as stream:
        for line in stream:
            yield _COMPLETION.validate_json(line)


def hub_variables(settings: Settings) -> dict[str, str]:
    """What huggingface_hub reads: the operator's hub, the token that the worker holds for it, and its cache."""
    token = os.environ.get(settings.hub_token_variable, "")
    cache = os.environ.get("HF_HOME", "")
    return {
        "HF_ENDPOINT": settings.hub_url.rstrip("/"),
        "HF_HUB_OFFLINE": str(int(settings.hub_offline)),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **({"HF_TOKEN": token} if token else {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}),
        **({"HF_HOME": cache} if cache else {}),
    }


KINDS: dict[str, Kind] = {
    "sft": Kind("lco.sft", collect_model),
    "pairs": Kind("lco.pairs", collect_nothing),
    "dpo": Kind("lco.dpo", collect_model),
    "train": Kind("lco.train", collect_model),
    "evaluation": Kind("evaluation.run", collect_results),
    "score": Kind("evaluation.score", collect_score),
    "sample": Kind("evaluation.sample", collect_nothing),
    "import": Kind("lco.hub", collect_model, hub_variables),
}
