"""Multiple-choice questions: the declared letter of a completion, and accuracies over subjects. No torch."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LETTERS = ("A", "B", "C", "D")

_SEARCHED_CHARACTERS = 20_000
"""An answer is declared at the start or the end of a completion; in a longer one the middle is left out."""

# Before the patterns are tried, `_plain` takes marks away and shortens white space: each pattern then reads a short,
# bounded stretch, so that no completion makes it slow.
_BOX = re.compile(r"\\(?:boxed|fbox)\b")
_COMMANDS = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|displaystyle|quad)\b")
_MARKS = re.compile(r"[*_`$\"'‘’“”{}\\]")
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n[ \n]*")

_NOUN = r"(?:answer|option|choice|alternative)"
# A letter stands for itself when nothing follows that makes it a word of a sentence: "A common mistake" declares
# nothing, "A because ..." does.
_END = (
    r"(?=$|[)\]\n(]|[.,;:!?/](?!\w)|[,/][A-D]\b| ?[–—(\[=&-]| ?</| (?:or|and) \(?[A-D]\b"
    r"| (?:because|since|as|for|is|was|which|due|given|while|although|though)\b)"
)
_DECLARED = re.compile(
    rf"\b{_NOUN} ?(?:is|was|would be|should be|must be|[:：=])[ \n:]{{0,3}}"
    rf"(?:(?:therefore|thus|clearly|hence|indeed|simply|most likely|probably)[, ]{{1,2}})?"
    rf"(?:the )?(?:correct )?(?:{_NOUN} ?)?[: ]{{0,2}}[(\[]? ?(?P<letter>[A-Z]){_END}",
    re.IGNORECASE,
)
_JUDGED = re.compile(
    rf"\b{_NOUN} [(\[]?(?P<letter>[A-Z])[)\]]? (?:is|was) (?:therefore |thus |clearly )?(?:the )?(?:most )?"
    r"(?:correct|right|best|accurate|appropriate|true)\b",
    re.IGNORECASE,
)
_LEADING = re.compile(r"[ \n(\[]{0,4}(?P<letter>[A-Z])(?:[)\]]|[.,:](?!\w)|\n|$)")
_ALTERNATIVE = re.compile(r"[)\]]? ?(?:or|and|/|,|&) ?[(\[]?[A-D](?![a-z])")


def declared_letter(completion: str, letters: Sequence[str] = LETTERS) -> str | None:
    r"""The letter that a completion declares to be its answer; None where it declares none, or two at once.

    The last declaration counts: `answer is B`, `Answer: (B)`, `\\boxed{B}`, `option B is correct`. Without one, a
    completion that begins with a letter of its own (`B`, `B.`, `(B) ...`) has that one. A letter that is only a word of
    a sentence ("A man ...") is no answer.
    """
    text = _plain(completion)
    found = [match for pattern in (_DECLARED, _JUDGED) for match in pattern.finditer(text)]
    if not found and (leading := _LEADING.match(text)) is not None:
        found = [leading]
    if not found:
        return None
    last = max(found, key=lambda match: match.start("letter"))
    if _ALTERNATIVE.match(text, last.end("letter")):
        return None
    letter = last["letter"].upper()
    return letter if letter in letters else None


def _plain(completion: str) -> str:
    """The text without emphasis, quotes and LaTeX, a box written as a declaration."""
    if len(completion) > 2 * _SEARCHED_CHARACTERS:
        completion = completion[:_SEARCHED_CHARACTERS] + "\n" + completion[-_SEARCHED_CHARACTERS:]
    text = _COMMANDS.sub(" ", _BOX.sub(" answer: ", completion))
    return _LINES.sub("\n", _BLANKS.sub(" ", _MARKS.sub("", text)))


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one question."""

    subject: str
    value: float
    """Share of its samples that are right: 0 or 1 where there is one."""
    answered_share: float = 1.0
    """Share of its samples that have an answer."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy over questions of several subjects. None where there is no question."""

    micro: float | None
    """Mean over questions."""
    macro: float | None
    """Mean over the means of the subjects."""
    micro_stderr: float | None
    """Standard error of `micro`: the subjects' variances, pooled by size."""
    macro_stderr: float | None
    """Standard error of `macro`."""
    num_questions: float
    subjects: dict[str, "SubjectAccuracy"]
    """By name, in the order of first mention."""


@dataclass(frozen=True, slots=True)
class SubjectAccuracy:
    """Accuracy over the questions of a subject."""

    value: float
    stderr: float
    """Binomial standard error, sqrt(p (1 - p) / n)."""
    num_questions: float


def accuracy(questions: Iterable[Answered], *, is_answered_only: bool = False) -> Accuracy:
    """Accuracy over all questions, where an unanswered one is wrong, or over the answered ones alone."""
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)  # a question's right share and its weight
    for question in questions:
        weight = question.answered_share if is_answered_only else 1.0
        if weight:
            values[question.subject].append((question.value / weight, weight))
    subjects = {}
    for subject, some in values.items():
        total = math.fsum(weight for _, weight in some)
        mean = math.fsum(value * weight for value, weight in some) / total
        variance = math.fsum((weight * (value - mean)) ** 2 for value, weight in some) / total**2
        subjects[subject] = SubjectAccuracy(mean, math.sqrt(variance), total)
    if not subjects:
        return Accuracy(None, None, None, None, 0, {})
    total = math.fsum(subject.num_questions for subject in subjects.values())
    return Accuracy(
        micro=math.fsum(subject.value * subject.num_questions for subject in subjects.values()) / total,
        macro=math.fsum(subject.value for subject in subjects.values()) / len(subjects),
        micro_stderr=math.sqrt(math.fsum((s.stderr * s.num_questions) ** 2 for s in subjects.values())) / total,
        macro_stderr=math.sqrt(math.fsum(s.stderr**2 for s in subjects.values())) / len(subjects),
        num_questions=total,
        subjects=subjects,
    )
