"""Stored completions of an evaluation scored again by today's version of a benchmark. No torch."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.base import Benchmark
from evaluation.config import BenchmarkConfig, EvalConfig
from evaluation.graders import Graders
from evaluation.passes import LIKELIHOOD, Pass
from evaluation.records import sound
from evaluation.results import COMPLETIONS, RESULTS, completion_of, results_of
from evaluation.types import Completion, Item, Result, Score
from lco.run_directory import CONFIGURATION

MAX_ERROR_RATE = 0.05
"""Share of the completions that our side may fail to score."""

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rescored:
    """What became of the completions."""

    rows: list[dict[str, Any]]
    """One per completion, with what it was before."""
    figures: dict[str, Any]
    results: list[Result]
    configurations: dict[str, dict[str, Any]]


def completions_file(source: str) -> Path:
    """The file that a source names: itself, or that of an evaluation's run directory."""
    path = Path(source)
    return path / COMPLETIONS if path.is_dir() else path


def stored_benchmark(source: str, name: str) -> dict[str, Any]:
    """The configuration of a benchmark in the evaluation that made the completions.

    Raises:
        ValueError: it is not known, or has no such benchmark.
    """
    path = completions_file(source).parent / CONFIGURATION
    try:
        benchmarks = EvalConfig.model_validate_json(path.read_bytes()).benchmarks
    except (OSError, ValueError) as error:
        raise ValueError(f"benchmark: {path} does not say how it was configured; give --config") from error
    for benchmark in benchmarks:
        if benchmark.name == name:
            return benchmark.model_dump(mode="json")
    raise ValueError(f"benchmark: {path} has {', '.join(one.name for one in benchmarks)}, not {name}")


def score_completions(
    source: str,
    config: BenchmarkConfig,
    directory: Path,
    earlier: Sequence[Path],
    report: Report,
    spent: Callable[[float], None] = lambda usd: None,
) -> Rescored:
    """Scores the completions of one benchmark.

    Args:
        directory: where replies and comparisons are recorded.
        earlier: directories that may hold some already.
        spent: told what graders have cost so far, in US dollars.

    Raises:
        ValueError: the completions are none of this benchmark's, or its data is another; or our side failed to score
            more than `MAX_ERROR_RATE` of them.
    """
    path = completions_file(source)
    benchmark: Benchmark[Any] = BENCHMARKS[config.name](config)
    before = [completion for completion in _read(path) if completion.benchmark == benchmark.name]
    if not before:
        raise ValueError(f"completions: {path} has none of {benchmark.name}")
    examples = {example.id: example for example in benchmark.examples}
    items = []
    for position, completion in enumerate(before):
        example = examples.get(completion.example_id)
        if example is None or sound(example.prompt) != completion.prompt:
            raise ValueError(
                f"completions: {path} answers {completion.example_id[:80]!r} "
                + ("with another prompt" if example else "which the data does not have")
                + "; the benchmark's configuration and data must be those of the evaluation"
            )
        if completion.verdict != "error" or completion.completion:  # else it was never made
            items.append(
                Item(
                    position=position,
                    example=example,
                    completion=completion.completion,
                    is_truncated=completion.truncated,
                    choice_logprobs=completion.choice_logprobs,
                )
            )
    after = dict(enumerate(before))
    with Graders(directory, [*earlier, path.parent]) as graders:
        benchmark.prepare(graders)
        for done, (position, score) in enumerate(benchmark.score_all(items, graders), start=1):
            after[position] = _scored(before[position], score)
            report(done, len(items))
            spent(graders.price)
    return _rescored(benchmark, path, before, [after[position] for position in range(len(before))])


def _read(path: Path) -> Iterator[Completion]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"completions: {path} cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield completion_of(json.loads(line))
        except (ValueError, TypeError, AttributeError) as error:
            message = f"completions: {path}: row {number} is no completion of an evaluation ({error})"
            raise ValueError(message) from error


def _scored(completion: Completion, score: Score) -> Completion:
    is_graded = score.value is not None and score.verdict != "scored"
    return replace(
        completion,
        extracted=score.extracted,
        verdict=score.verdict,
        correct=score.value == 1 if is_graded else None,
        value=score.value,
        reason=score.reason,
        values=score.values,
        details=score.details,
    )


def _rescored(
    benchmark: Benchmark[Any], path: Path, before: Sequence[Completion], after: Sequence[Completion]
) -> Rescored:
    if (failed := [one for one in after if one.value is None]) and len(failed) > MAX_ERROR_RATE * len(after):
        raise ValueError(
            f"{len(failed)} of {len(after)} completions could not be scored; the first: {failed[0].reason}"
        )
    groups: dict[tuple[str, int, int | None], list[Completion]] = defaultdict(list)
    for completion in after:
        groups[completion.decoding, completion.train_seed, completion.eval_seed].append(completion)
    system_prompt = _system_prompt(path.parent, benchmark.name)
    results: list[Result] = []
    configurations: dict[str, dict[str, Any]] = {}
    for (decoding, _, eval_seed), some in groups.items():
        num_samples = 1 + max(completion.sample_index for completion in some)
        one = Pass(benchmark, decoding, None if decoding == LIKELIHOOD else eval_seed, num_samples, system_prompt)
        results += results_of(one, some, [k for k in (1 << power for power in range(1, 11)) if k <= num_samples])
        configurations[one.configuration_hash] = one.configuration
    changed = sum((old.verdict, old.value) != (new.verdict, new.value) for old, new in zip(before, after, strict=True))
    figures = {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "graders": dict(benchmark.grader_versions()),
        "n": len(after),
        "n_missing": len(failed),
        "num_changed": changed,
        "results": [result.document() for result in results],
    }
    rows = [_row(old, new) for old, new in zip(before, after, strict=True)]
    return Rescored(rows, figures, results, configurations)


def _row(before: Completion, after: Completion) -> dict[str, Any]:
    fields = ("example_id", "decoding", "train_seed", "eval_seed", "sample_index", "verdict", "value", "extracted")
    row = {field: getattr(after, field) for field in (*fields, "reason", "values", "details")}
    return row | {"verdict_before": before.verdict, "value_before": before.value}


def _system_prompt(directory: Path, name: str) -> str:
    """What the evaluation's results say of the system prompt; none where they are not beside the completions."""
    try:
        configurations = json.loads((directory / RESULTS).read_bytes())["configurations"]
        return next(str(one["system_prompt"]) for one in configurations.values() if one["benchmark"] == name)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration):
        return ""
