"""Chat completions from OpenAI, Azure OpenAI or a compatible server: all outbound HTTP of the evaluation.

The `openai` SDK writes the requests (`max_retries=0`); retries, pacing, budget and circuit breaker are ours. The SDK
never sees the key: the transport below adds it to requests for the one origin of the configuration, sends no header
that is not listed, follows no redirect, uses no proxy of the environment, checks each address that it connects to, and
bounds the time and the size of every reply as a whole.
"""

import json
import os
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from evaluation.limits import (
    Breaker,
    Budget,
    CircuitOpen,
    Closed,
    EndpointFailure,
    EndpointRejected,
    RateLimit,
    SpendingCapReached,
)
from evaluation.records import Journal, content_key, sound
from evaluation.replies import BYTES_PER_TOKEN, Reply, Usage, read_reply
from evaluation.transport import BadReply, ForbiddenAddress, Transport
from lco.endpoint_config import EndpointConfig

__all__ = ["CircuitOpen", "Closed", "Endpoint", "EndpointFailure", "EndpointRejected", "Reply", "SpendingCapReached"]

_RETRIED = frozenset({408, 409, 425, 429})
_FATAL = frozenset({401, 403, 404})
_LOST = frozenset({"timeout", "cut", "garbage", "too_large"})
"""Tries that the server may have answered and charged although no answer could be read."""


class _Unusable(Exception):
    """A try without a usable answer."""

    def __init__(self, reason: str, *, is_outage: bool = True, retry_after: float | None = None) -> None:
        self.reason, self.is_outage, self.retry_after = reason, is_outage, retry_after
        super().__init__(reason)


class Endpoint:
    """Answers chat completions; safe to use from several threads."""

    def __init__(
        self,
        config: EndpointConfig,
        *,
        journal: Journal | None = None,
        environment: Mapping[str, str] = os.environ,
        seed: int | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            journal: replies found there are not asked for again, new ones are put there before they are returned.
            environment: where the key is looked up.
            seed: of the jitter between tries; None for a random one.

        Raises:
            ValueError: the environment holds no usable key.
        """
        self.config = config
        self._journal = journal
        self._spent_key = content_key(kind="spent", **config.identity())
        self._host = config.origin.partition("://")[2]
        self._random = random.Random(seed)
        self._slots = threading.BoundedSemaphore(config.max_concurrency)
        self._lock = threading.Lock()
        self._recording = threading.Lock()
        self._closed = threading.Event()
        self._breaker = Breaker(config)
        self._requests, self._tokens = RateLimit(config.requests_per_minute), RateLimit(config.tokens_per_minute)
        self._paused_until = float("-inf")
        kept = None if journal is None else journal.get(self._spent_key)
        self.budget = Budget(config.spending_cap, spent=kept["price"] if kept else 0.0)
        self._usage = Usage()
        header = _key_header(config, environment)
        http = httpx2.Client(
            transport=Transport(config, header), trust_env=False, follow_redirects=False, timeout=config.timeout_seconds
        )
        self._client = _client(config, http)

    def close(self) -> None:
        """Ends waiting calls with `Closed`; calls in flight end by their own limits."""
        self._closed.set()
        self._client.close()

    def usage(self) -> Usage:
        """What was asked and spent so far."""
        with self._lock:
            return Usage(**asdict(self._usage) | {"num_circuit_openings": self._breaker.num_openings})

    def estimated_price(self, num_prompt_bytes: int, num_completion_tokens: int) -> float:
        """What prompts of so many UTF-8 bytes would cost, at four bytes a token."""
        return self.config.prices.of(num_prompt_bytes / BYTES_PER_TOKEN, num_completion_tokens)

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int | None = None,
        top_logprobs: int = 0,
        stop: Sequence[str] = (),
    ) -> Reply:
        """One chat completion, from the journal or the network.

        Args:
            messages: `{"role": ..., "content": ...}`; lone surrogates are sent as U+FFFD.
            top_logprobs: candidates of the first token to report; 0 asks for none.

        Raises:
            EndpointFailure: no usable answer within the bounds of the configuration.
            EndpointRejected: the endpoint refuses every call.
            SpendingCapReached: the call does not fit into what is left of the cap.
            CircuitOpen: the endpoint was given up.
            Closed: `close` was called.
        """
        sent = [sound(message) for message in messages]
        request: dict[str, Any] = {"messages": sent, self.config.max_tokens_field: max_tokens}
        request |= {"temperature": temperature, "top_p": top_p}
        request |= {} if seed is None else {"seed": seed}
        request |= {"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {}
        request |= {"stop": list(stop)} if stop else {}
        key = content_key(kind="reply", **self.config.identity(), **request)
        kept = None if self._journal is None else self._journal.get(key)
        if kept is not None:
            reply = Reply(**kept)
            self._count(reply, num_from_journal=1)
            return reply
        try:
            reply = self._insistently(request, max_tokens)
        except EndpointFailure:
            self._count(None, num_failed_calls=1)
            raise
        if self._journal is not None:
            with self._recording:  # so that the last total is the largest
                total = {"price": self.budget.spent}
                self._journal.put_all([(key, asdict(reply)), (self._spent_key, total)])
        self._count(reply, num_calls=1)
        return reply

    def _insistently(self, request: dict[str, Any], max_tokens: int) -> Reply:
        """Tries until an answer, or until the tries or the time of the call are used up."""
        seconds_left = self.config.max_seconds
        for attempt in range(1, self.config.max_attempts + 1):
            with _Slot(self._slots, self._closed):
                started, outcome = self._try(request, max_tokens, seconds_left)
            if isinstance(outcome, Reply):
                return outcome
            longest = min(self.config.max_backoff_seconds, self.config.backoff_seconds * 2.0**attempt)
            wait = self._random.uniform(0, longest) if outcome.retry_after is None else outcome.retry_after
            seconds_left -= time.monotonic() - started + wait
            if outcome.retry_after is not None and seconds_left > 0:
                self._paused_until = max(self._paused_until, time.monotonic() + wait)
            if attempt == self.config.max_attempts or seconds_left <= 0:
                raise EndpointFailure(outcome.reason, self._host)
            self._sleep(wait)
        raise AssertionError(self.config.max_attempts)

    def _try(self, request: dict[str, Any], max_tokens: int, seconds_left: float) -> tuple[float, Reply | _Unusable]:
        """One try, once breaker, rates and budget let it go: when it started and how it ended."""
        num_bytes = sum(len(text.encode()) for message in request["messages"] for text in message.values())
        tokens = num_bytes / BYTES_PER_TOKEN + max_tokens
        is_probe = self._admitted(tokens)
        # No token is shorter than a byte, and a chat template adds a few for each message.
        highest = self.config.prices.of(num_bytes + 16 * len(request["messages"]), max_tokens)
        price, started = 0.0, time.monotonic()
        try:
            self.budget.reserve(highest, self._closed.is_set)
        except BaseException:
            with self._lock:
                self._breaker.abandoned(is_probe)
            raise
        try:
            self._count(None, num_tries=1)
            started = time.monotonic()
            reply = self._send(request, num_bytes, min(self.config.timeout_seconds, seconds_left))
            price = reply.price
        except _Unusable as failure:
            price = highest if failure.reason in _LOST else 0.0
            with self._lock:
                if failure.is_outage:
                    self._breaker.failed(time.monotonic(), is_probe)
                else:
                    self._breaker.succeeded()
            return started, failure
        except BaseException as error:
            with self._lock:
                if isinstance(error, EndpointFailure | EndpointRejected):
                    self._breaker.succeeded()  # it answers, if only this call with a refusal
                else:
                    self._breaker.abandoned(is_probe)
            raise
        finally:
            self.budget.settle(highest, price)
        with self._lock:
            self._breaker.succeeded()
            self._tokens.correct(reply.prompt_tokens + reply.completion_tokens - tokens)
        return started, reply

    def _admitted(self, tokens: float) -> bool:
        """Waits for the breaker, a pause that the server asked for, and the rates; whether the call is a probe."""
        while True:
            with self._lock:
                now = time.monotonic()
                wait, is_probe = self._breaker.enter(now)
                if not wait:
                    wait = max(0.0, self._requests.reserve(now, 1), self._tokens.reserve(now, tokens))
                    break
            self._sleep(wait)
        try:
            self._sleep(wait)
            while (pause := self._paused_until - time.monotonic()) > 0:
                self._sleep(min(pause, 1.0))
        except Closed:
            with self._lock:
                self._breaker.abandoned(is_probe)
            raise
        return is_probe

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise Closed

    def _send(self, request: dict[str, Any], num_bytes: int, timeout_seconds: float) -> Reply:
        """One request and its answer.

        Raises:
            _Unusable: there is none.
            EndpointRejected: no call can have one.
        """
        name = self.config.deployment if self.config.api == "azure" else self.config.model
        started = time.monotonic()
        try:
            answer = self._client.chat.completions.with_raw_response.create(
                model=name, timeout=httpx2.Timeout(timeout_seconds), **request
            )
            return read_reply(
                json.loads(answer.content),
                has_logprobs="top_logprobs" in request,
                num_prompt_bytes=num_bytes,
                seconds=time.monotonic() - started,
                prices=self.config.prices,
            )
        except openai.APIConnectionError as error:
            cause = error.__cause__
            if isinstance(cause, ForbiddenAddress):
                raise EndpointRejected(f"{self._host}: {cause}") from None
            raise _Unusable(cause.reason if isinstance(cause, BadReply) else "connection") from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except (ValueError, RecursionError, openai.APIError):
            raise _Unusable("garbage") from None

    def _refusal(self, error: openai.APIStatusError) -> Exception:
        """What an error status means. The server's text is not repeated: it can hold the key."""
        status = error.status_code
        code = str(error.code) if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", str(error.code or "")) else ""
        shown = f"HTTP {status}" + (f" ({code})" if code else "")
        if 300 <= status < 400:
            return EndpointRejected(f"{self._host}: {shown}: redirects are not followed; correct the address")
        if status in _FATAL or code == "insufficient_quota":
            return EndpointRejected(f"{self._host}: {shown}: check key, model, address and credit of the endpoint")
        if status == 429 or status >= 500 or status in _RETRIED:
            reason = "rate_limited" if status == 429 else f"http_{status}"
            return _Unusable(reason, is_outage=status >= 500, retry_after=_retry_after(error.response.headers))
        return EndpointFailure(f"rejected_{code or status}", self._host)

    def _count(self, reply: Reply | None, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self._usage, name, getattr(self._usage, name) + count)
            if reply is not None:
                for name in ("prompt_tokens", "completion_tokens", "price", "seconds"):
                    setattr(self._usage, name, getattr(self._usage, name) + getattr(reply, name))


class _Slot:
    """A place among the requests in flight."""

    def __init__(self, slots: threading.BoundedSemaphore, closed: threading.Event) -> None:
        self._slots, self._closed = slots, closed

    def __enter__(self) -> None:
        while not self._slots.acquire(timeout=0.5):
            if self._closed.is_set():
                raise Closed

    def __exit__(self, *_: object) -> None:
        self._slots.release()


def _client(config: EndpointConfig, http: httpx2.Client) -> openai.OpenAI:
    """The SDK's client; its key is a placeholder, because the transport adds the real one."""
    if config.api == "openai":
        return openai.OpenAI(api_key="unused", base_url=config.base_url, max_retries=0, http_client=http)
    return openai.AzureOpenAI(
        api_key="unused",
        azure_endpoint=config.endpoint_url,
        azure_deployment=config.deployment,
        api_version=config.api_version,
        max_retries=0,
        http_client=http,
    )


def _key_header(config: EndpointConfig, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The header with the key, from the variable that the configuration names."""
    if not config.api_key_variable:
        return None
    key = environment.get(config.api_key_variable, "").strip()
    if not key or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ValueError(f"api_key_variable: the environment variable {config.api_key_variable} holds no key")
    return ("api-key", key) if config.api == "azure" else ("authorization", f"Bearer {key}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, seconds, or an HTTP date; None where it says nothing."""
    milliseconds, stated = headers.get("retry-after-ms", ""), headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", stated):
        return float(stated)
    try:
        moment = parsedate_to_datetime(stated)
    except (ValueError, TypeError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
