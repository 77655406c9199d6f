"""Final answers: found in a completion, compared with a reference. For rewards and benchmarks alike. No torch.

Model text is untrusted: it can be wrong, it cannot raise, and nothing of it is ever evaluated as code.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from lco.config import Extraction

MAX_ANSWER_CHARACTERS = 4096
MAX_ANSWER_DIGITS = 4000  # CPython refuses to read an integer of more than 4,300 digits
MAX_EXPONENT = 10_000

Verdict = Literal["correct", "wrong", "no_answer"]

_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,6})?")
_NUMBER_IN_TEXT = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Grade:
    """What was made of one completion."""

    extracted: str | None
    """The final answer as written; None where there is none."""
    verdict: Verdict

    @property
    def is_correct(self) -> bool:
        """Whether the answer equals the reference."""
        return self.verdict == "correct"


def extract_last_equals(completion: str) -> str | None:
    """What stands after the last `=`: the answer of a chain of sums."""
    _, separator, answer = completion.rpartition("=")
    return answer.strip() or None if separator else None


def extract_boxed(completion: str) -> str | None:
    r"""The contents of the last `\boxed{...}` or `\fbox{...}`, braces matched; None if missing or open."""
    start = max(completion.rfind(r"\boxed{"), completion.rfind(r"\fbox{"))
    if start < 0:
        return None
    opening = completion.index("{", start)
    depth = 0
    for position in range(opening, min(len(completion), opening + MAX_ANSWER_CHARACTERS)):
        character = completion[position]
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return completion[opening + 1 : position].strip() or None
    return None


def extract_final_number(completion: str) -> str | None:
    """The last number of the text; that of a last line `#### N` or of the last box where there is one."""
    boxed = extract_boxed(completion)
    if boxed is not None:
        return boxed
    _, mark, after = completion.rpartition("####")
    if mark and (marked := _NUMBER_IN_TEXT.search(after)):
        return marked[0]
    numbers = _NUMBER_IN_TEXT.findall(completion)
    return str(numbers[-1]) if numbers else None


EXTRACTIONS = {
    "last-equals": extract_last_equals,
    "boxed": extract_boxed,
    "final-number": extract_final_number,
}


def parse_number(text: str) -> Fraction | None:
    """The exact value of a plain number, or None: integer, decimal, `a/b`, `1,234`, e-notation, with `$` or `%`."""
    text = text.replace("\\$", "").replace("\\%", "").strip().removesuffix(".")
    text = text.strip("$ ").removesuffix("%").strip()
    if len(text) > MAX_ANSWER_CHARACTERS or sum(c.isdigit() for c in text) > MAX_ANSWER_DIGITS:
        return None
    numerator, slash, denominator = text.partition("/")
    parts = [numerator.strip(), denominator.strip()] if slash else [numerator]
    values = []
    for part in parts:
        if not part.isascii() or _NUMBER.fullmatch(part) is None:
            return None
        mantissa, _, exponent = part.lower().replace(",", "").partition("e")
        if exponent and abs(int(exponent)) > MAX_EXPONENT:
            return None
        values.append(Fraction(mantissa) * Fraction(10) ** int(exponent or 0))
    if len(values) == 1:
        return values[0]
    return values[0] / values[1] if values[1] else None


def is_equivalent(answer: str, reference: str) -> bool:
    """Whether two final answers are equal: exact numbers where both are numbers, else text without white space."""
    value, reference_value = parse_number(answer), parse_number(reference)
    if value is not None and reference_value is not None:
        return value == reference_value
    return "".join(answer.split()) == "".join(reference.split())


def grade(completion: str, reference: str, extraction: Extraction) -> Grade:
    """Extracts the completion's final answer and compares it with the reference."""
    extracted = EXTRACTIONS[extraction](completion)
    if extracted is None:
        return Grade(None, "no_answer")
    extracted = extracted[:MAX_ANSWER_CHARACTERS]
    return Grade(extracted, "correct" if is_equivalent(extracted, reference) else "wrong")
