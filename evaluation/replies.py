"""What a chat-completion server answers, read from its JSON: text, first token's candidates, tokens. No HTTP here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lco.endpoint_config import Prices

BYTES_PER_TOKEN = 4
"""What an estimate takes for the length of a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One chat completion."""

    text: str
    finish_reason: str | None
    top_logprobs: dict[str, float] | None
    """Log-probabilities of the first token's most likely candidates; None where the server gives none."""
    prompt_tokens: int
    """As the server counts, else estimated as UTF-8 bytes / 4."""
    completion_tokens: int
    price: float
    """By the prices of the configuration."""
    seconds: float
    """Of the try that was answered."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """What a run asked of an endpoint."""

    num_calls: int = 0
    """Calls answered over the network."""
    num_from_journal: int = 0
    """Calls answered from what an earlier attempt of the run recorded."""
    num_tries: int = 0
    num_failed_calls: int = 0
    num_circuit_openings: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price: float = 0.0
    """Of all replies, those of earlier attempts included."""
    seconds: float = 0.0
    """Sum over replies."""


def read_reply(document: Any, *, has_logprobs: bool, num_prompt_bytes: int, seconds: float, prices: Prices) -> Reply:
    """The reply in a JSON document.

    Args:
        has_logprobs: whether candidates of the first token were asked for.

    Raises:
        ValueError: it is none.
    """
    try:
        choice = document["choices"][0]
        text = choice["message"].get("content") or ""
        finish_reason = choice.get("finish_reason")
        if not isinstance(text, str) or not isinstance(finish_reason, str | None):
            raise TypeError
        usage = document.get("usage") or {}
        prompt_tokens = _count(usage.get("prompt_tokens"), num_prompt_bytes)
        completion_tokens = _count(usage.get("completion_tokens"), len(text.encode("utf-8", "replace")))
        candidates = top_logprobs(choice.get("logprobs")) if has_logprobs else None
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError("no chat completion") from error
    return Reply(
        text=text,
        finish_reason=finish_reason,
        top_logprobs=candidates,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        price=prices.of(prompt_tokens, completion_tokens),
        seconds=round(seconds, 3),
    )


def _count(stated: Any, num_bytes: int) -> int:
    """A number of tokens as stated, else estimated."""
    return stated if isinstance(stated, int) and 0 <= stated < 1 << 40 else -(-num_bytes // BYTES_PER_TOKEN)


def top_logprobs(stated: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Candidates of the first token: chat form (`content[0].top_logprobs`), or the older `top_logprobs[0]`.

    Raises:
        KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError: they have another form.
    """
    if not stated:
        return None
    if content := stated.get("content"):
        return {entry["token"]: _finite(entry["logprob"]) for entry in content[0]["top_logprobs"]} or None
    if older := stated.get("top_logprobs"):
        return {str(token): _finite(value) for token, value in older[0].items()} or None
    return None


def _finite(value: Any) -> float:
    number = float(value)
    if not -1e9 < number <= 1e-3:
        raise ValueError(f"{number} is no log-probability")
    return number
