"""A policy behind an endpoint as a generator: several chat completions at a time. No torch."""

import os
from collections.abc import Iterator, Mapping, Sequence

from evaluation.calls import answered
from evaluation.config import EndpointPolicy
from evaluation.endpoint import Endpoint, EndpointFailure
from evaluation.generation import Generation, Request
from evaluation.records import Journal, content_key

_SEED_BITS = 31
"""Servers keep seeds in integers of different sizes; all have room for these."""


class EndpointGenerator:
    """Completions of whatever model an OpenAI-compatible server serves: vLLM, SGLang, OpenAI itself.

    The server applies the chat template. It may take the seed of a request or ignore it: only what is recorded is sure
    to be the same again.
    """

    def __init__(
        self,
        config: EndpointPolicy,
        *,
        journal: Journal | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """Opens no connection yet.

        Args:
            journal: replies found there are not asked for again.
            environment: where the key is looked up.

        Raises:
            ValueError: the environment holds no usable key.
        """
        self._endpoint = Endpoint(config.endpoint, journal=journal, environment=environment)
        self._fingerprint = content_key(endpoint=config.endpoint.identity())

    @property
    def fingerprint(self) -> str:
        """Names the server and the model there; what weights it serves under that name, only its operator knows."""
        return self._fingerprint

    @property
    def price(self) -> float:
        """What the server cost so far, in US dollars; what the journal has, too."""
        return self._endpoint.budget.spent

    def close(self) -> None:
        """Ends calls that wait."""
        self._endpoint.close()

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """See `Generator.complete`.

        Raises:
            CircuitOpen, EndpointRejected, SpendingCapReached: no later call would be answered either.
        """
        numbered = enumerate(requests)
        num_threads = self._endpoint.config.max_concurrency
        for (place, _), generation in answered(numbered, lambda pair: self._complete(pair[1]), num_threads):
            yield [(place, generation)]

    def choice_logprobs(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Generation]]]:
        """Chat completions tell no likelihood of given texts.

        Raises:
            ValueError: always.
        """
        raise ValueError("policy: an endpoint tells no likelihoods; give the weights")

    def _complete(self, request: Request) -> Generation:
        if request.is_raw:
            return Generation(error="an endpoint takes no raw prompt: it applies its chat template")
        messages = [{"role": "user", "content": request.prompt}]
        if request.system_prompt:
            messages.insert(0, {"role": "system", "content": request.system_prompt})
        try:
            reply = self._endpoint.chat(
                messages,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=None if request.temperature == 0 else request.seed & ((1 << _SEED_BITS) - 1),
                stop=request.stop,
            )
        except EndpointFailure as failure:
            return Generation(error=str(failure), is_transient=True)
        return Generation(
            text=reply.text,
            is_truncated=reply.finish_reason == "length",
            num_tokens=reply.completion_tokens,
            price=reply.price,
        )
