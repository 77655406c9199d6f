"""The table of results, turned for reading: methods down, benchmark and decoding across, each column's best marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.figures import column_labels, figure
from api.result_schemas import PublishedValue, SeedValue, TableRow, Unit

UNRANKED = frozenset(
    (
        *("no-answer", "truncated", "grader-timeout", "grader-skipped", "shortened"),
        *("standard_error", "lc_fit_spread", "lc_bootstrap_low", "lc_bootstrap_high", "n_total", "n_missing"),
        *("unweighted", "judge_tokens", "judge_price", "sub-sentences", "ties"),
    )
)
"""Metrics in which more is not better: nothing is marked as best."""
DOTS_WIDTH = 64
DOT_RADIUS = 2.5


@dataclass(frozen=True, slots=True)
class Column:
    """One decoding of one benchmark."""

    benchmark: str
    decoding: str
    configuration: str
    """Hash of what was measured: results of different ones never stand in one column."""
    label: str
    """The decoding, and what tells configurations apart where there are several."""
    is_first: bool
    """The benchmark's first."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What its cells share."""
        return self.benchmark, self.decoding, self.configuration


@dataclass(frozen=True, slots=True)
class Scale:
    """The line on which a column's seeds are drawn as dots."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value lies, in the drawing's units."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return round(DOT_RADIUS + share * (DOTS_WIDTH - 2 * DOT_RADIUS), 1)


@dataclass(frozen=True, slots=True)
class Cell:
    """What one method reached in one column."""

    mean: float | None
    std: float | None
    n: int
    each: list[SeedValue]
    """Per train seed, those with a value."""
    missing: list[int]
    dots: list[float]
    """Places of the seeds on the column's scale."""
    mean_at: float | None
    """Place of the mean."""
    unit: Unit
    """What mean, spread and each seed's value are."""
    hint: str
    """What a closer look tells: spread over eval seeds, what could not be scored, the scale of the dots."""
    is_best: bool
    published: PublishedValue | None = None
    """What others printed."""

    @property
    def is_ours(self) -> bool:
        """Whether anything of it was measured here, or is to be."""
        return bool(self.n or self.each or self.missing or self.mean is not None)


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
    labels: list[str]
    """Of its columns."""


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
    measured: dict[str, list[tuple[str, str]]] = {}  # benchmark -> decodings with their configurations
    for row in sorted(rows, key=lambda row: (row.benchmark, _decoding_rank(row.decoding), row.configuration)):
        if (row.decoding, row.configuration) not in measured.setdefault(row.benchmark, []):
            measured[row.benchmark].append((row.decoding, row.configuration))
    labels = column_labels(rows)
    columns = [
        Column(benchmark, decoding, configuration, labels[benchmark, decoding, configuration], is_first=position == 0)
        for benchmark, pairs in measured.items()
        for position, (decoding, configuration) in enumerate(pairs)
    ]
    present = {row.method for row in rows}
    order = [method for method in dict.fromkeys([*methods, *(row.method for row in rows)]) if method in present]
    cells = {(row.method, row.benchmark, row.decoding, row.configuration): row for row in rows}
    best: dict[Column, float | None] = dict.fromkeys(columns)
    if metric not in UNRANKED:
        best = {column: _best([_mean(cells, method, column) for method in order]) for column in columns}
    scales = {
        column: _scale([cells[key] for method in order if (key := (method, *column.key)) in cells])
        for column in columns
        if len(order) > 1  # one method alone would make its own small spread look large
    }
    lines = [
        Line(
            method,
            [_cell(cells.get((method, *column.key)), best[column], scales.get(column)) for column in columns],
        )
        for method in order
    ]
    heads = [BenchmarkHead(name, [column.label for column in columns if column.benchmark == name]) for name in measured]
    return MetricTable(metric, heads, columns, lines)


def _mean(cells: dict[tuple[str, str, str, str], TableRow], method: str, column: Column) -> float | None:
    row = cells.get((method, *column.key))
    return None if row is None else row.mean


def _best(means: Sequence[float | None]) -> float | None:
    """The highest mean; none where there is nothing to compare it with."""
    known = [mean for mean in means if mean is not None]
    return max(known) if len(known) > 1 else None


def _decoding_rank(label: str) -> tuple[bool, str]:
    """Greedy first, then by name."""
    return label != "greedy", label


def _scale(rows: Sequence[TableRow]) -> Scale:
    """From the least to the greatest value of any seed of any method."""
    values = [value.value for row in rows for value in row.per_seed if value.value is not None]
    return Scale(min(values, default=0.0), max(values, default=0.0))


def _cell(row: TableRow | None, best: float | None, scale: Scale | None) -> Cell | None:
    if row is None:
        return None
    known = [value for value in row.per_seed if value.value is not None]
    hints = []
    if row.std_over_eval_seeds is not None:
        hints.append(f"standard deviation over eval seeds {figure(row.std_over_eval_seeds, row.unit)}")
    if row.num_unscored:
        hints.append(f"{row.num_unscored} examples not scored")
    if scale is not None:
        hints.append(f"dots: seeds, from {figure(scale.low, row.unit)} to {figure(scale.high, row.unit)}")
    return Cell(
        mean=row.mean,
        std=row.std,
        n=row.n,
        each=known,
        missing=row.missing_seeds,
        dots=[] if scale is None else [scale.place(value.value) for value in known if value.value is not None],
        mean_at=None if scale is None or row.mean is None else scale.place(row.mean),
        unit=row.unit,
        hint="; ".join(hints),
        is_best=row.mean is not None and row.mean == best,
        published=row.published,
    )
