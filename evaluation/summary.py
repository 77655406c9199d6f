"""A finished evaluation as a table for a person: means, spread over eval seeds, error over problems. No torch."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.base import SHARES
from evaluation.results import read_completions, read_results
from evaluation.statistics import clustered_standard_error, mean_of, std_over_seeds
from evaluation.types import Result

_SHARES = ("truncated", "no-answer")
_COLUMNS = ("benchmark", "decoding", "metric", "mean", "std", "seeds", "s.e.", "problems", *_SHARES, "unscored")

Group = tuple[str, str]
"""Benchmark and decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A metric of one benchmark in one decoding, over all eval seeds."""

    benchmark: str
    decoding: str
    metric: str
    mean: float | None
    """Over eval seeds."""
    std_over_eval_seeds: float | None
    """ddof 1; None of fewer than two seeds."""
    num_eval_seeds: int
    """0 where nothing was random."""
    stderr_over_examples: float | None
    """Of the mean, each problem being one cluster; None where it is not known of several seeds together."""
    num_examples: int
    shares: dict[str, float | None]
    """Of the completions: truncated, without an answer, unscored; None where the benchmark does not tell."""


def summarize(run_dir: Path) -> list[Line]:
    """The metrics of a finished evaluation but for those of subjects, the headline of each benchmark first.

    Raises:
        ValueError: the directory holds no finished evaluation.
    """
    groups: dict[Group, dict[str, list[Result]]] = defaultdict(lambda: defaultdict(list))
    for row in read_results(run_dir).rows:
        groups[row.benchmark, row.decoding][row.metric].append(row)
    errors, totals = _over_all_seeds(run_dir)
    lines = []
    for group, metrics in groups.items():
        headline = BENCHMARKS[group[0]].metrics[0]
        first = metrics[headline]
        shares = {share: _mean(metrics.get(share, ())) for share in _SHARES}
        shares["unscored"] = sum(row.num_unscored for row in first) / totals[group] if totals[group] else None
        for metric, rows in metrics.items():
            is_idle = metric.startswith("grader-") and _mean(rows) == 0  # told where a grader gave up on something
            if (metric in SHARES and metric != headline) or "/" in metric or is_idle:
                continue
            seeds = [row for row in rows if row.eval_seed is not None]
            values = [row.value for row in seeds if row.value is not None]
            pooled = errors[group] if metric == "pass@1" else None
            lines.append(
                Line(
                    benchmark=group[0],
                    decoding=group[1],
                    metric=metric,
                    mean=_mean(rows),
                    std_over_eval_seeds=std_over_seeds(values) if len(values) == len(seeds) else None,
                    num_eval_seeds=len(seeds),
                    stderr_over_examples=rows[0].stderr_over_examples if len(rows) == 1 else pooled,
                    num_examples=rows[0].num_examples,
                    shares=shares,
                )
            )
    return lines


def table(lines: Sequence[Line]) -> str:
    """The lines as text, rates in percent."""
    cells = [_COLUMNS, *map(_cells, lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def _cells(line: Line) -> tuple[str, ...]:
    unit = BENCHMARKS[line.benchmark].units.get(line.metric, "fraction")

    def figure(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if unit == "number" else f"{100 * value if unit == 'fraction' else value:.1f}%"

    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.1f}%"

    return (
        line.benchmark,
        line.decoding,
        line.metric,
        figure(line.mean),
        figure(line.std_over_eval_seeds),
        str(line.num_eval_seeds or ""),
        figure(line.stderr_over_examples),
        str(line.num_examples),
        *(share(line.shares[name]) for name in (*_SHARES, "unscored")),
    )


def _mean(rows: Iterable[Result]) -> float | None:
    values = [row.value for row in rows]
    return None if None in values else mean_of(values)


def _over_all_seeds(run_dir: Path) -> tuple[dict[Group, float | None], dict[Group, int]]:
    """Of each benchmark and decoding: the standard error over problems of the mean score, and how many completions."""
    scores: dict[Group, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    totals: dict[Group, int] = defaultdict(int)
    for completion in read_completions(run_dir):
        group = completion.benchmark, completion.decoding
        totals[group] += 1
        if completion.value is not None:
            scores[group][completion.example_id].append(completion.value)
    errors = {
        group: clustered_standard_error([statistics.fmean(values) for values in scores[group].values()])
        for group in totals
    }
    return errors, totals
