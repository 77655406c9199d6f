"""What an evaluation speaks of: examples, completions, scores, results. No torch."""

from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["correct", "wrong", "no_answer", "timeout", "error", "skipped"]


@dataclass(frozen=True, slots=True)
class Example:
    """One problem of a benchmark."""

    id: str
    """Stable: the same problem has the same id in every run."""
    prompt: str
    reference: str


@dataclass(frozen=True, slots=True)
class Score:
    """What a benchmark made of one completion. What the text causes counts 0; what our side causes is None."""

    value: float | None
    verdict: Verdict
    extracted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion of an example with its score: a line of `completions.jsonl`."""

    benchmark: str
    example_id: str
    decoding: str
    train_seed: int
    eval_seed: int | None
    prompt: str
    completion: str
    reference: str
    extracted: str | None
    verdict: Verdict
    correct: bool | None
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A metric of one policy on one benchmark, for one eval seed in one decoding: a row of `results.json`."""

    benchmark: str
    metric: str
    decoding: str
    eval_seed: int | None
    value: float | None
    num_examples: int
    num_unscored: int

    def document(self) -> dict[str, Any]:
        """The row as JSON."""
        return {field: getattr(self, field) for field in self.__slots__}
