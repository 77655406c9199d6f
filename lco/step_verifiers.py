"""Step verifiers: (prompt, completion text) -> the steps of the completion, each right or wrong. No torch.

Model text can be wrong; it cannot raise. Numbers are bounded before they are computed with.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from lco.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a completion's text; it begins where the one before ends."""

    end: int
    """First character after the step. Beyond the text: the end-of-sequence token belongs to the step too."""
    is_right: bool | None
    """None where there is nothing to verify."""


_SUM_STEP = re.compile(r"([0-9]{1,9})\+([0-9]{1,9})=([0-9]{1,10})")
_SUM = re.compile(r"[0-9]{1,9}(\+[0-9]{1,9})+=")
_DIGITS = r"[0-9][0-9,]{0,14}(?:\.[0-9]{1,9})?"
_OPERATOR = r"[-+*/x\u00d7\u00f7]"
_EQUATION = re.compile(
    rf"(?<![0-9.,])([+-]?\$?{_DIGITS}(?:\s*{_OPERATOR}\s*\$?{_DIGITS}){{1,8}})\s*=\s*([+-]?\$?{_DIGITS})"
)
_TOKEN = re.compile(rf"[0-9][0-9,]*(?:\.[0-9]+)?|{_OPERATOR}")


def sums_steps(prompt: Prompt, completion: str) -> list[Step]:
    """The steps `7+5=12;12+9=21` of the sum `7+5+9=`: each goes on from the result that the one before states.

    A step is right if it adds the next term of the prompt to that result and states their sum; so a step after a wrong
    result may be right again. Ending is a step of its own: right once all terms are added.

    Raises:
        ValueError: the prompt is no such sum.
    """
    if not _SUM.fullmatch(prompt.text):
        raise ValueError(f"reward.verifier: the prompt {prompt.text[:80]!r} is no sum such as `7+5+9=`")
    terms = [int(term) for term in prompt.text[:-1].split("+")]
    steps: list[Step] = []
    end = 0
    result = terms[0]
    pieces = completion.split(";")
    for number, piece in enumerate(pieces, start=1):
        end += len(piece) + (number < len(pieces))
        match = _SUM_STEP.fullmatch(piece)
        is_right = False
        if match:
            first, second, stated = map(int, match.groups())
            is_right = number < len(terms) and (first, second) == (result, terms[number]) and stated == first + second
            result = stated
        steps.append(Step(end, is_right))
    return [*steps, Step(len(completion) + 1, len(pieces) == len(terms) - 1)]


def equation_steps(prompt: Prompt, completion: str) -> list[Step]:
    """The lines of a text: right if every equation `2 * 3 + 4 = 10` of numbers in it holds, wrong if one does not.

    Numbers may have thousands separators, decimals and a dollar sign; a stated decimal may be rounded. A line without
    an equation is neither.
    """
    del prompt
    steps = []
    end = 0
    lines = completion.split("\n")
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        verdicts = [_holds(left, right) for left, right in _EQUATION.findall(line)]
        steps.append(Step(end if number < len(lines) else len(completion) + 1, all(verdicts) if verdicts else None))
    return steps


def _holds(left: str, right: str) -> bool:
    """Whether a chain of operations has the stated value, as exactly as that is written."""
    value = _value(left)
    if value is None:
        return False
    stated = Fraction(right.replace(",", "").replace("$", ""))
    decimals = len(right.partition(".")[2])
    return abs(value - stated) <= (Fraction(1, 2 * 10**decimals) if decimals else 0)


def _value(text: str) -> Fraction | None:
    """Products before sums, from left to right; None for a division by 0."""
    sign = -1 if text.startswith("-") else 1
    tokens = _TOKEN.findall(text.lstrip("+-").replace("$", ""))
    total, product = Fraction(0), sign * Fraction(tokens[0].replace(",", ""))
    for operator, token in zip(tokens[1::2], tokens[2::2], strict=True):
        number = Fraction(token.replace(",", ""))
        if operator in "+-":
            total, product = total + product, number if operator == "+" else -number
        elif operator in "/\u00f7":
            if number == 0:
                return None
            product /= number
        else:
            product *= number
    return total + product


STEP_VERIFIERS: dict[str, Callable[[Prompt, str], list[Step]]] = {"sums": sums_steps, "equations": equation_steps}
