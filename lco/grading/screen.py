"""What is refused before anything computes with it: the bounds of an answer. No torch."""

import re

from lco.grading.latex import is_balanced
from lco.grading.numeric import MAX_DIGITS, MAX_EXPONENT

MAX_CHARACTERS = 4096
MAX_NESTING = 64
MAX_FACTORIAL = 10_000

_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*[-+]?\s*(\d[\d,]*)")
_E_NOTATION = re.compile(r"\d[eE][+-]?(\d+)")
_FACTORIAL = re.compile(r"(\d[\d,]*)\s*[})]*\s*!")


def refusal(answer: str) -> str | None:
    """Why an answer is not looked at any further; None where it is."""
    if len(answer) > MAX_CHARACTERS:
        return f"longer than {MAX_CHARACTERS} characters"
    if sum(map(str.isdigit, answer)) > MAX_DIGITS:
        return f"more than {MAX_DIGITS} digits"
    if _nesting(answer) > MAX_NESTING:
        return f"nested deeper than {MAX_NESTING}"
    for pattern, bound, what in (
        (_EXPONENT, MAX_EXPONENT, "exponent"),
        (_E_NOTATION, MAX_EXPONENT, "exponent"),
        (_FACTORIAL, MAX_FACTORIAL, "factorial"),
    ):
        for match in pattern.finditer(answer):
            digits = match[1].replace(",", "").lstrip("0")
            if len(digits) > len(str(bound)) or int(digits or 0) > bound:
                return f"{what} beyond {bound}"
    if not is_balanced(answer):
        return "unbalanced braces"
    return None


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth = max(0, depth - 1)
    return deepest
