"""From completions to results, and both read back as typed objects. No torch."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.passes import Pass
from evaluation.records import fields_of, sound
from evaluation.statistics import clustered_standard_error, maj_at_k, mean_of, pass_at_k
from evaluation.types import Completion, Result

COMPLETIONS = "completions.jsonl"
RESULTS = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What `results.json` holds."""

    rows: list[Result]
    """One per pass and metric."""
    configurations: dict[str, dict[str, Any]]
    """Hash -> what was measured; each row names one."""
    policy: dict[str, Any]
    """`source` and `fingerprint` of what was measured."""

    def document(self) -> dict[str, Any]:
        """The results as JSON."""
        return {
            "rows": [row.document() for row in self.rows],
            "configurations": self.configurations,
            "policy": self.policy,
        }


def results_of(one: Pass, completions: Sequence[Completion], pass_at: Sequence[int]) -> list[Result]:
    """The metrics of a pass, from its completions alone; their order decides nothing."""
    metrics = one.benchmark.aggregate(completions)
    errors = one.benchmark.standard_errors(completions)
    if "pass@1" in metrics and one.samples_per_example > 1:
        for metric, values in sampled_metrics(completions, pass_at, one.samples_per_example).items():
            metrics[metric] = mean_of(values.values())
            errors[metric] = clustered_standard_error(list(values.values()))
    num_examples = len({completion.example_id for completion in completions})
    num_unscored = sum(completion.value is None for completion in completions)
    return [
        Result(
            benchmark=one.benchmark.name,
            metric=metric,
            decoding=one.decoding,
            eval_seed=one.eval_seed,
            value=sound(value),
            stderr_over_examples=sound(errors.get(metric)),
            num_examples=num_examples,
            num_unscored=num_unscored,
            configuration=one.configuration_hash,
        )
        for metric, value in metrics.items()
    ]


def sampled_metrics(
    completions: Sequence[Completion], pass_at: Sequence[int], num_samples: int
) -> dict[str, dict[str, float]]:
    """Each example's Pass@k, maj@k and mean@n of its samples, by metric and example id.

    An example with fewer than k scored samples is left out of the metrics at k: what our side failed to score is no
    wrong answer. `mean@n` is the mean over all samples, the estimate of Pass@1 under the name of its effort.
    """
    samples: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        if completion.value is not None:
            samples[completion.example_id].append(completion)
    found: dict[str, dict[str, float]] = {}
    for k in pass_at:
        if k == 1:
            continue
        passed, voted = found.setdefault(f"pass@{k}", {}), found.setdefault(f"maj@{k}", {})
        for example_id, some in samples.items():
            is_correct = [completion.value == 1 for completion in some]
            answers = [completion.extracted for completion in some]
            value, majority = pass_at_k(len(some), sum(is_correct), k), maj_at_k(answers, is_correct, k)
            if value is not None and majority is not None:
                passed[example_id], voted[example_id] = value, majority
    found[f"mean@{num_samples}"] = {
        example_id: sum(completion.value or 0.0 for completion in some) / len(some)
        for example_id, some in samples.items()
    }
    return found


def completion_line(completion: Completion) -> str:
    """The completion as a line of `completions.jsonl`."""
    return json.dumps(sound(fields_of(completion))) + "\n"


def completion_of(document: Mapping[str, Any]) -> Completion:
    """The completion that a line of `completions.jsonl` holds."""
    logprobs = document.get("choice_logprobs")
    return Completion(**{**document, "choice_logprobs": None if logprobs is None else tuple(logprobs)})


def read_completions(run_dir: Path) -> Iterator[Completion]:
    """The completions of a finished evaluation, in their order.

    Raises:
        ValueError: the directory has none, or a line is none.
    """
    path = run_dir / COMPLETIONS
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    yield completion_of(json.loads(line))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{path}: line {number} is no completion ({error})") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def read_results(run_dir: Path) -> Results:
    """The results of a finished evaluation.

    Raises:
        ValueError: the directory has none, or something else under their name.
    """
    path = run_dir / RESULTS
    try:
        document = json.loads(path.read_bytes())
        return Results(
            rows=[Result(**row) for row in document["rows"]],
            configurations=document["configurations"],
            policy=document["policy"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no readable results ({error})") from error
