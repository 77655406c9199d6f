"""What an evaluation speaks of: examples, completions, scores, results. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["correct", "wrong", "no_answer", "timeout", "error", "skipped", "scored"]
"""`scored`: a number was found and there is no right or wrong, as for a preference."""


@dataclass(frozen=True, slots=True)
class Example:
    """One problem of a benchmark."""

    id: str
    """Stable: the same problem has the same id in every run."""
    prompt: str
    reference: str
    choices: tuple[str, ...] = field(default=(), kw_only=True)
    """Continuations of which the likelihood form takes the most probable."""
    is_raw: bool = field(default=False, kw_only=True)
    """The prompt is given to the model as it stands, without its chat template."""
    extra: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """What else a scorer needs, as JSON: a subject, the output of the reference model."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a benchmark made of one completion. What the text causes counts 0; what our side causes is None."""

    value: float | None
    verdict: Verdict
    extracted: str | None = None
    reason: str | None = None
    """Why, for a person: what the grader refused, how our side failed."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Further numbers of the example, of which `aggregate` makes metrics."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping in the record, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One completion to be scored."""

    position: int
    """Its number in the order of the evaluation; what a score is told by."""
    example: Example
    completion: str
    """The text; in the likelihood form the most probable choice."""
    is_truncated: bool = False
    """The completion reached its limit without an end."""
    choice_logprobs: tuple[float, ...] | None = None
    """Log-probability of each of the example's choices; None outside the likelihood form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion of an example with its score: a line of `completions.jsonl`."""

    benchmark: str
    example_id: str
    decoding: str
    train_seed: int
    eval_seed: int | None
    sample_index: int = 0
    """Which of the example's samples, from 0."""
    prompt: str
    completion: str
    reference: str
    extracted: str | None
    verdict: Verdict
    correct: bool | None
    """None where our side failed, and where there is no right or wrong."""
    value: float | None = None
    """The score; None where our side failed."""
    reason: str | None = None
    """Why, for a person."""
    truncated: bool
    num_tokens: int = 0
    """Tokens of the completion."""
    choice_logprobs: tuple[float, ...] | None = None
    """Log-probability of each choice in the likelihood form."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Further numbers of the example."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else the scorer kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A metric of one policy on one benchmark, for one eval seed in one decoding: a row of `results.json`."""

    benchmark: str
    metric: str
    decoding: str
    eval_seed: int | None
    value: float | None
    stderr_over_examples: float | None = None
    """Standard error of the value over problems, the samples of one being one cluster; None where it is not known."""
    num_examples: int
    """Problems."""
    num_unscored: int
    """Completions left out because our side failed."""
    configuration: str = ""
    """Hash of what was measured: the benchmark's configuration, version, data and graders, and the decoding."""

    def document(self) -> dict[str, Any]:
        """The row as JSON."""
        return {field: getattr(self, field) for field in self.__slots__}
