"""Results over seeds, computed when read: eval seeds are averaged first, the spread is over train seeds."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


class ResultLike(Protocol):
    """What a table needs of a result; the rows of `store.models.record.Result` have it."""

    @property
    def id(self) -> UUID:
        """Later results have greater ones."""

    @property
    def method(self) -> str:
        """The name under which it is tabled."""

    @property
    def benchmark(self) -> str:
        """What was measured."""

    @property
    def metric(self) -> str:
        """The named number."""

    @property
    def decoding(self) -> str:
        """How completions were drawn."""

    @property
    def train_seed(self) -> int:
        """Of the evaluated policy."""

    @property
    def eval_seed(self) -> int | None:
        """Of the completions; None for greedy decoding."""

    @property
    def value(self) -> float | None:
        """None where nothing could be scored."""

    @property
    def num_examples(self) -> int:
        """Examples behind the value."""

    @property
    def num_unscored(self) -> int:
        """Examples left out of it."""

    @property
    def configuration(self) -> str:
        """Hash of what was measured."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and spread of some values."""

    n: int
    mean: float | None
    """None without values."""
    std: float | None
    """With ddof=1; None for fewer than two values."""


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (ddof=1) of values; exact sums, so that their order does not matter."""
    n = len(values)
    if n == 0:
        return Spread(0, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean, None)
    return Spread(n, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCell:
    """One method on one benchmark for one train seed."""

    train_seed: int
    mean: float | None
    """Over the eval seeds that have a value."""
    std_over_eval_seeds: float | None
    """ddof=1; None for greedy decoding and for fewer than two values."""
    values: dict[int | None, float | None]
    """Eval seed -> value; the eval seed is None for greedy decoding."""
    num_examples: int
    """Of all eval seeds together."""
    num_unscored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One method on one benchmark, over train seeds."""

    method: str
    benchmark: str
    metric: str
    decoding: str
    configuration: str
    """Hash of what was measured; another one is another row."""
    mean: float | None
    """Over the train seeds' means."""
    std: float | None
    """Over the train seeds' means, ddof=1; None for fewer than two."""
    n: int
    """Train seeds with a value."""
    missing_seeds: list[int]
    """Train seeds that were to be evaluated and have no value."""
    std_over_eval_seeds: float | None
    """Mean over train seeds of the spread over eval seeds; None for greedy decoding."""
    num_examples: int
    num_unscored: int
    per_seed: list[SeedCell]
    """In the order of the train seeds."""


_Name = tuple[str, str, str, str, str]


def results_table(rows: Iterable[ResultLike], expected: Mapping[str, Collection[int]] | None = None) -> list[TableRow]:
    """One row per (method, benchmark, metric, decoding, configuration), in the order of first mention.

    A result without a value (nothing could be scored) is left out of every mean. Where one was measured twice, the
    later counts.

    Args:
        expected: method -> train seeds that were to be evaluated (`Results.expected_seeds`); without it, the seeds seen
            of a method in any of its rows.
    """
    groups: dict[_Name, dict[tuple[int, int | None], ResultLike]] = defaultdict(dict)
    seen: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        group = groups[row.method, row.benchmark, row.metric, row.decoding, row.configuration]
        key = (row.train_seed, row.eval_seed)
        if key not in group or group[key].id < row.id:
            group[key] = row
        seen[row.method].add(row.train_seed)
    return [
        _table_row(name, list(group.values()), set((expected or seen).get(name[0], ())) | _seeds(group))
        for name, group in groups.items()
    ]


def _seeds(group: Mapping[tuple[int, int | None], ResultLike]) -> set[int]:
    return {train_seed for train_seed, _ in group}


def _table_row(name: _Name, results: list[ResultLike], expected: set[int]) -> TableRow:
    by_seed: dict[int, list[ResultLike]] = defaultdict(list)
    for result in results:
        by_seed[result.train_seed].append(result)
    cells = [_cell(train_seed, by_seed[train_seed]) for train_seed in sorted(by_seed)]
    means = [cell.mean for cell in cells if cell.mean is not None]
    over_eval_seeds = [cell.std_over_eval_seeds for cell in cells if cell.std_over_eval_seeds is not None]
    total = spread(means)
    method, benchmark, metric, decoding, configuration = name
    return TableRow(
        method=method,
        benchmark=benchmark,
        metric=metric,
        decoding=decoding,
        configuration=configuration,
        mean=total.mean,
        std=total.std,
        n=total.n,
        missing_seeds=sorted(expected - {cell.train_seed for cell in cells if cell.mean is not None}),
        std_over_eval_seeds=spread(over_eval_seeds).mean,
        num_examples=sum(cell.num_examples for cell in cells),
        num_unscored=sum(cell.num_unscored for cell in cells),
        per_seed=cells,
    )


def _cell(train_seed: int, results: list[ResultLike]) -> SeedCell:
    values = {result.eval_seed: result.value for result in results}
    order = sorted(values, key=lambda seed: (seed is not None, seed or 0))
    over_eval_seeds = spread([value for value in values.values() if value is not None])
    is_sampled = any(seed is not None for seed in values)
    return SeedCell(
        train_seed=train_seed,
        mean=over_eval_seeds.mean,
        std_over_eval_seeds=over_eval_seeds.std if is_sampled else None,
        values={seed: values[seed] for seed in order},
        num_examples=sum(result.num_examples for result in results),
        num_unscored=sum(result.num_unscored for result in results),
    )
