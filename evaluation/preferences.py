"""AlpacaEval's comparison of two outputs, without the call: prompt, order, preference, win rate. No torch, no numpy.

The protocol is `weighted_alpaca_eval_gpt4_turbo` of https://github.com/tatsu-lab/alpaca_eval: the judge sees two
outputs as models `m` (shown first) and `M`, and the log-probabilities of these two tokens say how much it prefers one.
"""

import math
import random
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from evaluation.records import sound

_TEMPLATE = Path(__file__).parent / "judge_templates" / "alpaca_eval_clf.txt"
_MESSAGE = re.compile(r"<\|im_start\|>(system|user)\n(.*?)<\|im_end\|>", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(instruction|output_1|output_2)\}")
TIE = 1.5
"""Preference of equal outputs; 1 means that the reference wins, 2 that the model does."""


@cache
def template() -> tuple[tuple[str, str], ...]:
    """Role and content of the judge prompt's messages, placeholders unfilled."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    return tuple((match[1], match[2].strip()) for match in _MESSAGE.finditer(text))


def judge_messages(instruction: str, first: str, second: str) -> list[dict[str, str]]:
    """The judge prompt. Filled in one pass, after it was split: no output can add a placeholder or a message."""
    values = {"instruction": instruction, "output_1": first, "output_2": second}
    return [
        {"role": role, "content": _PLACEHOLDER.sub(lambda match: values[match[1]], content)}
        for role, content in template()
    ]


def is_switched(instruction: str) -> bool:
    """Whether the model's output is shown first: a fair coin that the instruction seeds."""
    return random.Random(sound(f"is_switched_outputs{instruction}0")).choices([False, True], k=1)[0]


def preference_of(top_logprobs: Mapping[str, float], is_model_first: bool) -> float | None:
    """The judge's preference in [1, 2]: 2 - p(m) / (p(m) + p(M)), turned round where the model was shown first.

    A token that is not among the candidates counts 0; None where neither is.
    """
    chances = [math.exp(top_logprobs[token]) if token in top_logprobs else 0.0 for token in ("m", "M")]
    total = sum(chances)
    if not total > 0:
        return None
    preference = 2 - chances[0] / total
    return 3 - preference if is_model_first else preference


def sampled_preference(text: str, is_model_first: bool) -> float | None:
    """The preference that the sampled answer alone tells: 1 or 2; None where it is neither `m` nor `M`."""
    preference = {"m": 1.0, "M": 2.0}.get(text.strip())
    return 3 - preference if preference is not None and is_model_first else preference


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """What preferences say without a model of lengths; rates in percent."""

    win_rate: float | None
    """Mean preference; None of no preferences."""
    standard_error: float | None
    """Of that mean over instructions; None of fewer than two."""
    discrete_win_rate: float | None
    """Each preference rounded to a win or a loss, a tie as half."""
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    """Preferences."""


def win_rate(preferences: Sequence[float]) -> WinRate:
    """The win rate of preferences in [1, 2]."""
    shares = [preference - 1 for preference in preferences]
    count = len(shares)
    wins, losses = sum(share > 0.5 for share in shares), sum(share < 0.5 for share in shares)
    draws = count - wins - losses
    return WinRate(
        win_rate=100 * math.fsum(shares) / count if count else None,
        standard_error=100 * statistics.stdev(shares) / math.sqrt(count) if count > 1 else None,
        discrete_win_rate=100 * (wins + draws / 2) / count if count else None,
        n_wins=wins,
        n_wins_base=losses,
        n_draws=draws,
        n_total=count,
    )


def is_extreme(win_rate: float, length_controlled: float) -> bool:
    """Whether controlling for length changed the win rate so much that the fit deserves a look (percent)."""
    low = win_rate - max(10.0, win_rate / 4)
    high = win_rate + max(10.0, (100 - win_rate) / 4)
    return not low <= length_controlled <= high
