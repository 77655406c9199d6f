"""Final answers: found in a completion, compared with a reference; for rewards, pairs and validation. No torch.

Model text is untrusted: it can be wrong, it cannot raise, and nothing of it is ever evaluated as code. The comparison
`exact` is here and needs no process; `math` is that of `lco.grading.grader`, which benchmarks use.
"""

import re
from fractions import Fraction

from lco.config import Comparison, Extraction
from lco.grading.extraction import EXTRACTIONS, extract_boxed, extract_final_number, extract_last_equals
from lco.grading.grade import Grade, Verdict
from lco.grading.grader import shared_grader
from lco.grading.screen import MAX_CHARACTERS as MAX_ANSWER_CHARACTERS

__all__ = [
    "EXTRACTIONS",
    "Grade",
    "GraderFailure",
    "Verdict",
    "extract_boxed",
    "extract_final_number",
    "extract_last_equals",
    "grade",
    "is_equivalent",
    "parse_number",
]


class GraderFailure(RuntimeError):
    """Our side failed to grade: a process that does not start, a library that is missing."""


MAX_ANSWER_DIGITS = 4000  # CPython refuses to read an integer of more than 4,300 digits
MAX_EXPONENT = 10_000

_NUMBER = re.compile(r"[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,6})?")


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


def grade(completion: str, reference: str, extraction: Extraction, comparison: Comparison = "exact") -> Grade:
    """Extracts the completion's final answer and compares it with the reference.

    Raises:
        GraderFailure: the comparison is `math` and our side fails: there is no verdict to go on with.
    """
    if comparison == "math":
        graded = shared_grader().grade(completion, reference, extraction)
        if graded.verdict == "error":
            raise GraderFailure(f"an answer could not be graded: {graded.reason}")
        return graded
    extracted = EXTRACTIONS[extraction](completion)
    if extracted is None:
        return Grade(None, "no_answer")
    extracted = extracted[:MAX_ANSWER_CHARACTERS]
    return Grade(extracted, "correct" if is_equivalent(extracted, reference) else "wrong")
