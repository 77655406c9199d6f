"""The judge: which of two outputs to an instruction is better. One call a comparison, none for equal outputs. No torch.

A failure of the judge is no preference, never a loss: `Judgement.preference` is None and `reason` says why. What makes
every later call fail as well (a wrong key, the spending cap, an endpoint that stays down) is raised instead.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluation.calls import answered
from evaluation.endpoint import Endpoint, EndpointFailure
from evaluation.judge_config import JudgeConfig
from evaluation.preferences import TIE, is_switched, judge_messages, preference_of, sampled_preference
from evaluation.records import Journal

_BARE_REPLIES = 8
"""So many replies without log-probabilities, and none with them, tell that the server gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared."""

    instruction: str
    reference: str
    """The baseline's output."""
    output: str
    """The model's output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the judge thinks of a comparison."""

    preference: float | None
    """In [1, 2]; 2 where the model wins. None where our side failed."""
    is_model_first: bool
    reason: str | None = None
    """Why there is no preference, or why there was no call: `equal outputs`."""
    text: str | None = None
    """What the judge answered."""
    top_logprobs: Mapping[str, float] | None = None
    num_tokens: int = 0
    """Of prompt and answer."""
    price: float = 0.0
    seconds: float = 0.0


class Judge:
    """Compares outputs; safe to use from several threads."""

    def __init__(
        self, config: JudgeConfig, *, journal: Journal | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Opens no connection yet.

        Args:
            journal: no call whose reply is recorded there is made again.

        Raises:
            ValueError: the environment holds no key where the configuration names one.
        """
        self.config = config
        self.endpoint = Endpoint(config.endpoint, journal=journal, environment=environment)
        self._lock = threading.Lock()
        self._num_with = self._num_without = 0

    def close(self) -> None:
        """Ends calls that wait."""
        self.endpoint.close()

    def check_estimate(self, comparisons: Iterable[Comparison]) -> float:
        """What the comparisons would cost; outputs yet to be made count with the text that stands for them.

        Raises:
            SpendingCapReached: more than what is left of the cap.
        """
        num_bytes = num_tokens = 0
        for one in comparisons:
            if one.output != one.reference:
                num_bytes += sum(len(message["content"].encode("utf-8", "replace")) for message in _messages(one))
                num_tokens += self.config.max_tokens
        price = self.endpoint.estimated_price(num_bytes, num_tokens)
        self.endpoint.budget.check(price, "the comparisons")
        return price

    def compare(self, one: Comparison) -> Judgement:
        """Which output is better.

        Raises:
            EndpointRejected, SpendingCapReached, CircuitOpen, Closed: no later call could succeed either.
            ValueError: the server gives no log-probabilities and the configuration needs them.
        """
        is_model_first = is_switched(one.instruction)
        if one.output == one.reference:
            return Judgement(preference=TIE, is_model_first=is_model_first, reason="equal outputs")
        needs_logprobs = self.config.weighting == "logprobs"
        try:
            reply = self.endpoint.chat(
                _messages(one),
                max_tokens=self.config.max_tokens,
                temperature=self.config.temperature,
                top_logprobs=self.config.top_logprobs if needs_logprobs else 0,
            )
        except EndpointFailure as failure:
            return Judgement(preference=None, is_model_first=is_model_first, reason=failure.reason)
        reason = None
        if needs_logprobs:
            self._note(reply.top_logprobs is not None)
            preference = preference_of(reply.top_logprobs or {}, is_model_first)
            if preference is None:
                reason = "no_logprobs" if reply.top_logprobs is None else "neither_token"
        else:
            preference = sampled_preference(reply.text, is_model_first)
            reason = None if preference is not None else "neither_token"
        return Judgement(
            preference=preference,
            is_model_first=is_model_first,
            reason=reason,
            text=reply.text,
            top_logprobs=reply.top_logprobs,
            num_tokens=reply.prompt_tokens + reply.completion_tokens,
            price=reply.price,
            seconds=reply.seconds,
        )

    def compare_all(self, comparisons: Iterable[Comparison]) -> Iterator[tuple[int, Judgement]]:
        """Compares many at a time; gives each judgement with its place, as soon as it is made."""
        numbered = enumerate(comparisons)
        for (place, _), judgement in answered(
            numbered, lambda pair: self.compare(pair[1]), self.config.endpoint.max_concurrency
        ):
            yield place, judgement

    def usage(self) -> dict[str, Any]:
        """Calls, tokens, price and time so far."""
        return asdict(self.endpoint.usage())

    def _note(self, has_logprobs: bool) -> None:
        with self._lock:
            self._num_with += has_logprobs
            self._num_without += not has_logprobs
            if self._num_without >= _BARE_REPLIES and not self._num_with:
                raise ValueError(
                    f"judge: {self.config.endpoint.model} gave no log-probabilities in {self._num_without} replies; "
                    'set weighting = "sampled-token", whose results are marked unweighted'
                )


def _messages(one: Comparison) -> list[dict[str, str]]:
    first, second = (one.output, one.reference) if is_switched(one.instruction) else (one.reference, one.output)
    return judge_messages(one.instruction, first, second)
