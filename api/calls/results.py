"""Calls about results, scores and curves."""

from collections.abc import Sequence
from typing import Any

from api import result_schemas, schemas, service_schemas, subject_schemas
from api.calls.base import Ask, AskList, listing
from api.transport import Call, body_of


def score(request: Any) -> Ask[schemas.JobRead]:
    """A new score job."""
    return Ask(Call("POST", "/v1/scores", content=body_of(request)), schemas.JobRead)


def scored(job: str) -> Ask[service_schemas.ScoreRead]:
    """A score job with its figures."""
    return Ask(Call("GET", f"/v1/scores/{job}"), service_schemas.ScoreRead)


def metrics(run: str, keys: list[str] | None, from_step: int, max_points: int) -> Ask[schemas.MetricsRead]:
    """Metrics of a run."""
    query = {"keys": ",".join(keys) if keys else None, "from_step": from_step, "max_points": max_points}
    return Ask(Call("GET", f"/v1/runs/{run}/metrics", query), schemas.MetricsRead)


def curves(experiment: str, keys: list[str] | None, kind: str | None, max_points: int) -> Ask[schemas.CurvesRead]:
    """Metrics of an experiment's jobs over their seeds."""
    query = {"keys": ",".join(keys) if keys else None, "kind": kind, "max_points": max_points}
    return Ask(Call("GET", f"/v1/experiments/{experiment}/curves", query), schemas.CurvesRead)


def results_table(experiment: str | None, job: str | None) -> Ask[result_schemas.ResultsTable]:
    """The table of results."""
    return Ask(Call("GET", "/v1/results/table", {"experiment": experiment, "job": job}), result_schemas.ResultsTable)


def printed_table(experiment: str, form: str, metric: str | None, baseline: str | None) -> Call:
    """The table of results as text."""
    query = {"experiment": experiment, "format": form, "metric": metric, "baseline": baseline}
    return Call("GET", "/v1/results/table", query)


def comparisons(experiment: str, baseline: str, filters: dict[str, Any]) -> AskList[service_schemas.ComparisonRead]:
    """Every other method against a baseline."""
    query = {"experiment": experiment, "baseline": baseline, **filters}
    return AskList("/v1/comparisons", service_schemas.ComparisonRead, query)


def completions(run: str, filters: dict[str, Any]) -> AskList[result_schemas.CompletionRead]:
    """Completions of an evaluation run, a thousand a page."""
    return listing(f"/v1/runs/{run}/completions", result_schemas.CompletionRead, filters, limit=1000)


def side_by_side(run: str, other: str, change: str | None) -> AskList[result_schemas.CompletionPair]:
    """Completions of two evaluation runs."""
    path = f"/v1/runs/{run}/completions/against/{other}"
    return listing(path, result_schemas.CompletionPair, {"change": change}, limit=500)


def side_by_side_of(ids: Sequence[str]) -> Ask[subject_schemas.SideBySide]:
    """Runs and checkpoints side by side."""
    return Ask(Call("GET", "/v1/comparisons/runs", {"ids": ",".join(ids)}), subject_schemas.SideBySide)
