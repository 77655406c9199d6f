"""Methods compared with a baseline: paired over train seeds, and paired over examples."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Float, Integer, cast, func, select
from sqlalchemy.orm import Session

from evaluation.statistics import mcnemar_p
from store.models.job import Job
from store.models.record import Completion
from store.models.run import Run
from store.significance import Interval, bootstrap_interval, holm, paired_t_p, sign_flip_p, t_interval
from store.statistics import TableRow, spread

ExampleKey = tuple[str, str, str]
"""Method, benchmark, decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverExamples:
    """The same problems, each one's share of correct completions compared."""

    num_examples: int
    num_wins: int
    num_losses: int
    num_ties: int
    mcnemar_p: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodComparison:
    """One method less the baseline in one metric of one benchmark and decoding."""

    method: str
    baseline: str
    benchmark: str
    metric: str
    decoding: str
    configuration: str
    """Hash of what was measured; both measured the same."""
    seeds: list[int]
    """Train seeds that both have a value for."""
    differences: list[float]
    """By these seeds."""
    mean: float | None
    std: float | None
    interval: Interval | None
    """Student's, 95 %."""
    bootstrap: Interval | None
    """Percentile, 95 %."""
    t_p: float | None
    sign_flip_p: float | None
    adjusted_p: float | None
    """`t_p` after Holm, over all comparisons of one request."""
    examples: OverExamples | None
    """None where the metric is not Pass@1."""


def compare_methods(
    rows: Sequence[TableRow], baseline: str, examples: Mapping[ExampleKey, Mapping[str, float]] | None = None
) -> list[MethodComparison]:
    """Every other method in every metric that the baseline has too.

    Args:
        rows: of the table of results.
        examples: share of correct completions of each example, by method, benchmark and decoding.

    Raises:
        ValueError: no row is of the baseline.
    """
    bases = {_what(row): row for row in rows if row.method == baseline}
    if not bases:
        raise ValueError(f"no results are of the method {baseline!r}")
    pairs = [(row, bases.get(_what(row))) for row in rows if row.method != baseline]
    matched = [(row, base) for row, base in pairs if base is not None]
    paired = [_paired(row, base) for row, base in matched]
    p_values = [paired_t_p(list(differences.values())) for differences in paired]
    adjusted = holm(p_values)
    return [
        _comparison(row, baseline, differences, p_value, adjusted_p, examples or {})
        for (row, _), differences, p_value, adjusted_p in zip(matched, paired, p_values, adjusted, strict=True)
    ]


def _what(row: TableRow) -> tuple[str, str, str, str]:
    return row.benchmark, row.metric, row.decoding, row.configuration


def _paired(row: TableRow, base: TableRow) -> dict[int, float]:
    """Train seed -> difference, where both have a value."""
    values = {cell.train_seed: cell.mean for cell in base.per_seed}
    found = {}
    for cell in row.per_seed:
        other = values.get(cell.train_seed)
        if cell.mean is not None and other is not None:
            found[cell.train_seed] = cell.mean - other
    return found


def _comparison(
    row: TableRow,
    baseline: str,
    by_seed: Mapping[int, float],
    t_p: float | None,
    adjusted_p: float | None,
    examples: Mapping[ExampleKey, Mapping[str, float]],
) -> MethodComparison:
    differences = list(by_seed.values())
    total = spread(differences)
    return MethodComparison(
        method=row.method,
        baseline=baseline,
        benchmark=row.benchmark,
        metric=row.metric,
        decoding=row.decoding,
        configuration=row.configuration,
        seeds=list(by_seed),
        differences=differences,
        mean=total.mean,
        std=total.std,
        interval=t_interval(differences),
        bootstrap=bootstrap_interval(differences),
        t_p=t_p,
        sign_flip_p=sign_flip_p(differences),
        adjusted_p=adjusted_p,
        examples=over_examples(
            examples.get((row.method, row.benchmark, row.decoding), {}),
            examples.get((baseline, row.benchmark, row.decoding), {}),
        )
        if row.metric == "pass@1"
        else None,
    )


def over_examples(method: Mapping[str, float], baseline: Mapping[str, float]) -> OverExamples | None:
    """Wins, losses and ties on the examples that both have; None where they share none."""
    shared = method.keys() & baseline.keys()
    if not shared:
        return None
    wins = sum(method[example] > baseline[example] for example in shared)
    losses = sum(method[example] < baseline[example] for example in shared)
    return OverExamples(
        num_examples=len(shared),
        num_wins=wins,
        num_losses=losses,
        num_ties=len(shared) - wins - losses,
        mcnemar_p=mcnemar_p(wins, losses),
    )


def example_shares(
    session: Session, *, experiment_id: UUID | None = None, job_ids: Iterable[UUID] = ()
) -> dict[ExampleKey, dict[str, float]]:
    """The share of correct completions of each example, over seeds and samples; what our side failed on is left out."""
    is_wanted = Job.experiment_id == experiment_id if experiment_id is not None else Job.id.in_(list(job_ids))
    owner = func.coalesce(Run.reused_run_id, Run.id)
    share = func.avg(cast(cast(Completion.correct, Integer), Float))
    query = (
        select(Job.method, Completion.benchmark, Completion.decoding, Completion.example_id, share)
        .join(Run, Run.job_id == Job.id)
        .join(Completion, Completion.run_id == owner)
        .where(is_wanted, Completion.correct.is_not(None))
        .group_by(Job.method, Completion.benchmark, Completion.decoding, Completion.example_id)
    )
    shares: dict[ExampleKey, dict[str, float]] = defaultdict(dict)
    for method, benchmark, decoding, example, value in session.execute(query):
        shares[method, benchmark, decoding][example] = value
    return dict(shares)
