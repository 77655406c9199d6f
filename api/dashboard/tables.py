"""The table of results, turned for reading: methods down, benchmark and decoding across, each column's best marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.dashboard.words import percent
from api.schemas import SeedValue, TableRow


@dataclass(frozen=True, slots=True)
class Column:
    """One decoding of one benchmark."""

    benchmark: str
    decoding: str
    is_first: bool
    """The benchmark's first."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one method reached in one column."""

    mean: float | None
    std: float | None
    n: int
    each: list[SeedValue]
    """Per train seed, those with a value."""
    missing: list[int]
    hint: str
    """What a closer look tells: spread over eval seeds, what could not be scored."""
    is_best: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One method."""

    method: str
    cells: list[Cell | None]
    """By column; none where it was not evaluated."""


@dataclass(frozen=True, slots=True)
class BenchmarkHead:
    """A benchmark over its columns."""

    name: str
    decodings: list[str]


@dataclass(frozen=True, slots=True)
class MetricTable:
    """All methods in one metric."""

    name: str
    benchmarks: list[BenchmarkHead]
    columns: list[Column]
    rows: list[Line]


def by_method(rows: Sequence[TableRow], methods: Sequence[str] = ()) -> list[MetricTable]:
    """One table a metric.

    Args:
        methods: their order down the table; others follow as they come.
    """
    return [
        _table(metric, [row for row in rows if row.metric == metric], methods)
        for metric in dict.fromkeys(row.metric for row in rows)
    ]


def _table(metric: str, rows: Sequence[TableRow], methods: Sequence[str]) -> MetricTable:
    decodings: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row.benchmark, _decoding_rank(row.decoding))):
        if row.decoding not in decodings.setdefault(row.benchmark, []):
            decodings[row.benchmark].append(row.decoding)
    columns = [
        Column(benchmark, decoding, is_first=position == 0)
        for benchmark, labels in decodings.items()
        for position, decoding in enumerate(labels)
    ]
    present = {row.method for row in rows}
    order = [method for method in dict.fromkeys([*methods, *(row.method for row in rows)]) if method in present]
    cells = {(row.method, row.benchmark, row.decoding): row for row in rows}
    best = {column: _best([_mean(cells, method, column) for method in order]) for column in columns}
    lines = [
        Line(
            method, [_cell(cells.get((method, column.benchmark, column.decoding)), best[column]) for column in columns]
        )
        for method in order
    ]
    heads = [BenchmarkHead(name, labels) for name, labels in decodings.items()]
    return MetricTable(metric, heads, columns, lines)


def _mean(cells: dict[tuple[str, str, str], TableRow], method: str, column: Column) -> float | None:
    row = cells.get((method, column.benchmark, column.decoding))
    return None if row is None else row.mean


def _best(means: Sequence[float | None]) -> float | None:
    """The highest mean; none where there is nothing to compare it with."""
    known = [mean for mean in means if mean is not None]
    return max(known) if len(known) > 1 else None


def _decoding_rank(label: str) -> tuple[bool, str]:
    """Greedy first, then by name."""
    return label != "greedy", label


def _cell(row: TableRow | None, best: float | None) -> Cell | None:
    if row is None:
        return None
    hints = []
    if row.std_over_eval_seeds is not None:
        hints.append(f"standard deviation over eval seeds {percent(row.std_over_eval_seeds)}")
    if row.num_unscored:
        hints.append(f"{row.num_unscored} examples not scored")
    return Cell(
        mean=row.mean,
        std=row.std,
        n=row.n,
        each=[value for value in row.per_seed if value.value is not None],
        missing=row.missing_seeds,
        hint="; ".join(hints),
        is_best=row.mean is not None and row.mean == best,
    )
