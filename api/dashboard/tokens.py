"""Tokens as a page colours them: by their advantage, or by how unlikely they were."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LEVELS = 4
_UNLIKELY = (0.9, 0.5, 0.2, 0.05)
"""Probabilities below which a token is a level more unlikely."""
_FEW = 3


@dataclass(frozen=True, slots=True)
class Token:
    """One token."""

    text: str
    """What stands for it: line ends are shown, and a token without text is a mark."""
    shade: str
    """Its class: `up-1` to `up-4`, `down-1` to `down-4`, `rare-1` to `rare-4`, or none."""
    told: str
    """Its values, for a person."""
    value: float | None
    """What it is coloured by."""


def by_advantage(
    pieces: Sequence[str],
    advantages: Sequence[float | None],
    logprobs: Sequence[float | None],
    scale: float,
) -> list[Token]:
    """The tokens of a completion by advantage.

    Args:
        scale: the largest absolute advantage on the page, the strongest colour.
    """
    tokens = []
    for piece, advantage, logprob in zip(pieces, advantages, logprobs, strict=True):
        told = f"advantage {number(advantage)}, {_probability(logprob)}"
        tokens.append(Token(_shown(piece), _signed_shade(advantage, scale), told, advantage))
    return tokens


def by_probability(pieces: Sequence[str], logprobs: Sequence[float | None]) -> list[Token]:
    """The tokens of a completion by how unlikely they were."""
    tokens = []
    for piece, logprob in zip(pieces, logprobs, strict=True):
        level = 0 if logprob is None else sum(math.exp(min(0.0, logprob)) < bound for bound in _UNLIKELY)
        tokens.append(Token(_shown(piece), f"rare-{level}" if level else "", _probability(logprob), logprob))
    return tokens


def largest(groups: Iterable[Sequence[float | None]]) -> float:
    """The largest absolute value of several lists; 0 where there is none."""
    return max((abs(value) for values in groups for value in values if value is not None), default=0.0)


def strongest(tokens: Sequence[Token], *, is_up: bool) -> list[Token]:
    """The few tokens with the largest (or the smallest) values of that sign, each text once."""
    sign = 1 if is_up else -1
    found: dict[str, Token] = {}
    for token in sorted(tokens, key=lambda token: -sign * (token.value or 0.0)):
        if (token.value or 0.0) * sign > 0:
            found.setdefault(token.text, token)
    return list(found.values())[:_FEW]


def number(value: float | None) -> str:
    """Three significant digits with a sign; `unknown` where there is none."""
    return "unknown" if value is None else f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def _signed_shade(value: float | None, scale: float) -> str:
    if value is None or scale == 0 or abs(value) < 0.02 * scale:
        return ""
    level = max(1, math.ceil(_LEVELS * min(1.0, abs(value) / scale) - 1e-9))
    return f"{'up' if value > 0 else 'down'}-{level}"


def _probability(logprob: float | None) -> str:
    if logprob is None:
        return "probability unknown"
    return f"probability {math.exp(min(0.0, logprob)):.3g} (log {logprob:.3g})"


def _shown(piece: str) -> str:
    return piece.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n") if piece else "\N{END OF PROOF}"
