"""Completions asked for and given, whatever makes them: the `Generator` protocol. No torch.

A request says everything that decides its completion, so that order, company and resuming change nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation.records import content_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to make, or one set of choices to compare."""

    example_id: str
    sample_index: int
    """Which of the example's samples, from 0."""
    prompt: str
    is_raw: bool
    """The prompt is given as it stands, without a chat template."""
    system_prompt: str = ""
    """What the chat template says before the prompt; empty for nothing."""
    seed: int
    """Of this completion alone: named by eval seed, example and sample."""
    temperature: float
    """0 takes the most probable token."""
    top_p: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    """Strings that end the completion; the string itself is left out."""
    choices: tuple[str, ...] = ()
    """Continuations to compare; nothing is sampled where there are any."""

    def key(self, fingerprint: str) -> str:
        """What a completion of this request by the policy of a fingerprint is recorded under."""
        decides: dict[str, Any] = {
            "prompt": self.prompt,
            "is_raw": self.is_raw,
            "system_prompt": self.system_prompt,
            "fingerprint": fingerprint,
            "example_id": self.example_id,
            "sample_index": self.sample_index,
        }
        if self.choices:
            return content_key(**decides, choices=self.choices)
        return content_key(
            **decides,
            seed=self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            stop=self.stop,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What became of a request."""

    text: str = ""
    """The completion; of choices the most probable, the first where several are."""
    is_truncated: bool = False
    """The completion reached `max_tokens` without an end."""
    num_tokens: int = 0
    """Tokens of the completion, with the one that ended it."""
    choice_logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each choice; None where there were none."""
    error: str | None = None
    """Why there is no completion: our side's fault, so that nothing is scored."""
    is_transient: bool = False
    """The error may be gone the next time: a resumed evaluation asks again."""
    price: float = 0.0
    """What it cost, in US dollars."""


def generation_of(record: Mapping[str, Any]) -> Generation:
    """The generation that a record of `generations.jsonl` holds."""
    logprobs = record.get("choice_logprobs")
    return Generation(**{**record, "choice_logprobs": None if logprobs is None else tuple(logprobs)})


class Generator(Protocol):
    """Makes completions of one policy."""

    @property
    def fingerprint(self) -> str:
        """Names the policy: other weights, other fingerprint."""

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """Samples completions; gives those made together, each with its request's place in `requests`, in any order."""

    def choice_logprobs(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """Compares each request's choices as continuations of its prompt; gives those done together, in any order."""

    def close(self) -> None:
        """Frees what the generator holds."""
