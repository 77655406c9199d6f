"""Two evaluations compared example by example. `python -m evaluation.comparison RUN_DIR RUN_DIR`. No torch.

Both measured the same problems, so the difference is taken per problem first: what the problems share in difficulty
cancels. The interval is a paired bootstrap over problems; the test is McNemar's, exact.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation.results import COMPLETIONS, RESULTS
from evaluation.statistics import clustered_standard_error, mcnemar_p

NUM_RESAMPLES = 10_000
LISTED = 20
"""Problems listed by name for a person."""
_BLOCK = 500
"""Resamples drawn at a time."""

Group = tuple[str, str]
"""Benchmark and decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two policies on one benchmark in one decoding; `other` less `base`."""

    benchmark: str
    decoding: str
    num_examples: int
    """Problems that both have a score for."""
    num_left_out: int
    """Problems that only one has a score for."""
    base: float
    """Mean over problems of the mean over samples and eval seeds."""
    other: float
    difference: float
    stderr_over_examples: float | None
    """Of the difference; None of fewer than two problems."""
    interval: tuple[float, float]
    """95 % percentile interval of the difference from `NUM_RESAMPLES` paired resamples of the problems."""
    wins: list[str]
    """Problems where `other` has the greater mean."""
    losses: list[str]
    num_ties: int
    mcnemar_p: float | None
    """Two-sided exact p-value that wins and losses are equally likely, given their sum; None without either."""


def compare(base: Path, other: Path, *, seed: int = 0) -> list[Comparison]:
    """Compares the run directories of two evaluations on what they both measured.

    Args:
        seed: of the bootstrap.

    Raises:
        ValueError: a directory holds no finished evaluation, they share no benchmark and decoding, or they measured one
            in two different configurations.
    """
    _check_configurations(base, other)
    base_scores, other_scores = _scores(base), _scores(other)
    groups = [group for group in base_scores if group in other_scores]
    if not groups:
        raise ValueError(f"{base} and {other} share no benchmark in one decoding")
    return [compare_scores(*group, base_scores[group], other_scores[group], seed=seed) for group in groups]


def compare_scores(
    benchmark: str, decoding: str, base: Mapping[str, float], other: Mapping[str, float], *, seed: int = 0
) -> Comparison:
    """Compares two policies by their mean score of each problem.

    Raises:
        ValueError: no problem has a score of both.
    """
    shared = sorted(base.keys() & other.keys())
    if not shared:
        raise ValueError(f"{benchmark} {decoding}: no problem has a score of both")
    differences = np.array([other[example] - base[example] for example in shared])
    wins = [example for example, difference in zip(shared, differences, strict=True) if difference > 0]
    losses = [example for example, difference in zip(shared, differences, strict=True) if difference < 0]
    return Comparison(
        benchmark=benchmark,
        decoding=decoding,
        num_examples=len(shared),
        num_left_out=len(base.keys() ^ other.keys()),
        base=math.fsum(base[example] for example in shared) / len(shared),
        other=math.fsum(other[example] for example in shared) / len(shared),
        difference=math.fsum(differences) / len(shared),
        stderr_over_examples=clustered_standard_error(differences.tolist()),
        interval=bootstrap_interval(differences, seed=seed),
        wins=wins,
        losses=losses,
        num_ties=len(shared) - len(wins) - len(losses),
        mcnemar_p=mcnemar_p(len(wins), len(losses)),
    )


def bootstrap_interval(
    values: "np.ndarray | Sequence[float]", *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over resamples of the values with repetition.

    Args:
        values: one per problem, at least one.
        level: in (0, 1).
    """
    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    # Counts of a resample are multinomial, so equal values are drawn together: a few distinct values, however many.
    distinct, counts = np.unique(array, return_counts=True)
    share = counts / len(array)
    means = [
        generator.multinomial(len(array), share, size=_BLOCK) @ distinct / len(array)
        for _ in range(NUM_RESAMPLES // _BLOCK)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def read_completions(directory: Path) -> Iterator[dict[str, object]]:
    """The records of a finished evaluation, one by one.

    Raises:
        ValueError: there are none.
    """
    path = directory / COMPLETIONS
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}: row {number} is no JSON ({error})") from error
    except OSError as error:
        raise ValueError(f"{directory}: no finished evaluation here ({error.strerror}: {COMPLETIONS})") from error


def _scores(directory: Path) -> dict[Group, dict[str, float]]:
    """The mean score of each problem, by benchmark and decoding; problems that nobody could score are left out."""
    values: dict[Group, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in read_completions(directory):
        value = record.get("value")
        if value is None and record.get("correct") is not None:
            value = float(bool(record["correct"]))
        if isinstance(value, int | float):
            values[str(record["benchmark"]), str(record["decoding"])][str(record["example_id"])].append(value)
    return {
        group: {example: math.fsum(some) / len(some) for example, some in examples.items()}
        for group, examples in values.items()
    }


def _check_configurations(base: Path, other: Path) -> None:
    """Refuses to compare one benchmark in two configurations.

    Raises:
        ValueError: as said.
    """
    first, second = _configurations(base), _configurations(other)
    for group, configuration in first.items():
        if second.get(group, configuration) != configuration:
            raise ValueError(
                f"{' '.join(group)}: the two evaluations have different configurations of this benchmark "
                f"(prompt, problems, extraction, ...); their scores are not comparable"
            )


def _configurations(directory: Path) -> dict[Group, object]:
    try:
        rows = json.loads((directory / RESULTS).read_bytes())["rows"]
        return {(row["benchmark"], row["decoding"]): row.get("configuration") for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{directory}: no finished evaluation here ({RESULTS}: {error})") from error


def shown(comparison: Comparison) -> str:
    """A comparison as lines for a person, fractions in percent."""
    low, high = comparison.interval
    p_value = "-" if comparison.mcnemar_p is None else f"{comparison.mcnemar_p:.3g}"
    lines = [
        f"{comparison.benchmark} {comparison.decoding}: {100 * comparison.base:.2f} -> {100 * comparison.other:.2f} "
        f"({100 * comparison.difference:+.2f}, 95 % interval {100 * low:+.2f} to {100 * high:+.2f}) "
        f"on {comparison.num_examples} problems",
        f"  {len(comparison.wins)} better, {len(comparison.losses)} worse, {comparison.num_ties} equal; "
        f"McNemar p {p_value}",
    ]
    for title, examples in (("better", comparison.wins), ("worse", comparison.losses)):
        if examples:
            more = f" and {len(examples) - LISTED} more" if len(examples) > LISTED else ""
            lines.append(f"  {title}: {', '.join(examples[:LISTED])}{more}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 where the two cannot be compared."""
    parser = argparse.ArgumentParser(prog="lco compare", description="Compare two evaluations problem by problem.")
    parser.add_argument("base", type=Path, metavar="BASE", help="run directory of an evaluation")
    parser.add_argument("other", type=Path, metavar="OTHER", help="run directory of the one it is compared with")
    parser.add_argument("--json", action="store_true", help="every number, and all problems that changed, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")
    options = parser.parse_args(arguments)
    try:
        found = compare(options.base, options.other, seed=options.seed)
    except ValueError as error:
        print(f"lco compare: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(comparison) for comparison in found], indent=1))
    else:
        print("\n".join(map(shown, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
