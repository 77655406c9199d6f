"""From results and completions to wire models."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from api import result_schemas as schemas
from api.published import with_published
from api.views import shown_id
from evaluation.benchmarks import BENCHMARKS
from store.ids import encode_id
from store.models.record import Completion, Result
from store.repositories.jobs import Experiments, Jobs
from store.repositories.records import Results
from store.statistics import TableRow
from store.statistics import results_table as statistics_of


def unit_of(benchmark: str, metric: str) -> schemas.Unit:
    """What the values of a metric are, as its benchmark says."""
    known = BENCHMARKS.get(benchmark)
    if benchmark == "alpaca-eval":  # figures of stored annotations, as its users know them
        return "number" if metric.startswith("lc_c") else "percent"
    return "fraction" if known is None else known.units.get(metric, "fraction")


def result(row: Result) -> schemas.ResultRead:
    """One result."""
    return schemas.ResultRead(
        id=encode_id("res", row.id),
        run_id=encode_id("run", row.run_id),
        job_id=encode_id("job", row.job_id),
        experiment_id=shown_id("exp", row.experiment_id),
        checkpoint_id=shown_id("ckpt", row.checkpoint_id),
        method=row.method,
        benchmark=row.benchmark,
        metric=row.metric,
        decoding=row.decoding,
        train_seed=row.train_seed,
        eval_seed=row.eval_seed,
        value=row.value,
        unit=unit_of(row.benchmark, row.metric),
        num_examples=row.num_examples,
        num_unscored=row.num_unscored,
        stderr_over_examples=row.stderr_over_examples,
        configuration=row.configuration,
        created_at=row.created_at,
    )


def completion(row: Completion) -> schemas.CompletionRead:
    """One completion."""
    return schemas.CompletionRead(
        position=row.position,
        benchmark=row.benchmark,
        example_id=row.example_id,
        decoding=row.decoding,
        train_seed=row.train_seed,
        eval_seed=row.eval_seed,
        prompt=row.prompt,
        completion=row.completion,
        reference=row.reference,
        extracted=row.extracted,
        verdict=row.verdict,
        correct=row.correct,
        truncated=row.truncated,
        sample_index=row.sample_index,
        value=row.value,
        reason=row.reason,
        num_tokens=row.num_tokens,
        choice_logprobs=row.choice_logprobs,
        values=row.values,
        details=row.details,
    )


def completion_pair(first: Completion, second: Completion) -> schemas.CompletionPair:
    """Two completions of one problem."""
    change: Literal["gained", "lost", "same", "unknown"] = "same"
    if first.correct is None or second.correct is None:
        change = "unknown"
    elif first.correct != second.correct:
        change = "gained" if second.correct else "lost"
    return schemas.CompletionPair(
        position=first.position, change=change, first=completion(first), second=completion(second)
    )


def table_rows(rows: Iterable[TableRow]) -> list[schemas.TableRow]:
    """Rows of a table of results."""
    return [
        schemas.TableRow(
            method=row.method,
            benchmark=row.benchmark,
            metric=row.metric,
            decoding=row.decoding,
            configuration=row.configuration,
            unit=unit_of(row.benchmark, row.metric),
            mean=row.mean,
            std=row.std,
            n=row.n,
            missing_seeds=row.missing_seeds,
            std_over_eval_seeds=row.std_over_eval_seeds,
            num_examples=row.num_examples,
            num_unscored=row.num_unscored,
            per_seed=[
                schemas.SeedValue(
                    train_seed=cell.train_seed,
                    value=cell.mean,
                    num_eval_seeds=sum(value is not None for value in cell.values.values()),
                    std_over_eval_seeds=cell.std_over_eval_seeds,
                    num_examples=cell.num_examples,
                    num_unscored=cell.num_unscored,
                )
                for cell in row.per_seed
            ],
        )
        for row in rows
    ]


def results_table(
    session: Session, *, experiment_id: UUID | None = None, job_id: UUID | None = None
) -> schemas.ResultsTable:
    """The table of results of an experiment or a job: exact statistics over seeds, computed now.

    Raises:
        NotFound: there is no such experiment or job.
    """
    document: Mapping[str, Any] = {}
    if experiment_id is not None:
        document = Experiments(session).get(experiment_id).document
    elif job_id is not None:
        Jobs(session).get(job_id)
    results = Results(session)
    rows = statistics_of(
        results.all(experiment_id=experiment_id, job_id=job_id),
        results.expected_seeds(experiment_id=experiment_id, job_id=job_id),
    )
    return schemas.ResultsTable(
        experiment_id=shown_id("exp", experiment_id),
        job_id=shown_id("job", job_id),
        rows=with_published(table_rows(rows), document, unit_of),
        configurations=results.configurations({row.configuration for row in rows}),
    )
