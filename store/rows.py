"""What a finished run hands over to become rows, in the transaction that makes it succeed."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One metric of an evaluation for one eval seed in one decoding."""

    benchmark: str
    metric: str
    decoding: str
    eval_seed: int | None
    """None for greedy decoding."""
    value: float | None
    """None where nothing could be scored."""
    num_examples: int
    num_unscored: int = 0
    stderr_over_examples: float | None = None
    """Of the value; None where it is not known."""
    configuration: str = ""
    """Hash of what was measured, a key of `Collected.configurations`; empty where the run names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRow:
    """One completion of an evaluation, with what was made of it."""

    benchmark: str
    example_id: str
    decoding: str
    eval_seed: int | None
    prompt: str
    completion: str
    reference: str
    extracted: str | None
    verdict: str
    correct: bool | None
    truncated: bool
    sample_index: int = 0
    value: float | None = None
    reason: str | None = None
    num_tokens: int = 0
    choice_logprobs: list[float | None] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """One rollout that a training run keeps, with its tokens: a line of `rollouts.jsonl`."""

    iteration: int
    position: int
    prompt_id: str
    prompt: str
    reference: str
    num_tokens: int
    is_truncated: bool
    reward: float | None
    is_correct: bool | None
    parts: dict[str, float | None]
    pieces: list[str]
    """Text of each token that is kept."""
    advantages: list[float | None]
    logprobs: list[float | None]

    def __post_init__(self) -> None:
        """Refuses tokens of which not everything is known.

        Raises:
            ValueError: the lists have different lengths.
        """
        if not len(self.pieces) == len(self.advantages) == len(self.logprobs):
            raise ValueError("pieces, advantages, logprobs: not one of each for every token")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRow:
    """A verified directory with weights."""

    step: int
    path: str
    """Relative to the artifact root, as `artifacts.relative_path` gives it."""
    manifest_sha256: str
    size_bytes: int
    kind: str = "model"
    """`state` (resumable) or `model`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Everything a finished run leaves."""

    results: Iterable[ResultRow] = ()
    completions: Iterable[CompletionRow] = ()
    """In their order; may be read lazily."""
    models: Iterable[CheckpointRow] = ()
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Hash -> what the results measured."""
