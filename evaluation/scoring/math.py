"""Math answers that people already have: graded by the grader that rewards and benchmarks use."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal, get_args

from evaluation.statistics import clustered_standard_error, maj_at_k, mean_of, mean_pass_at_k, naive_standard_error
from lco.grading.grade import Grade, Verdict
from lco.grading.grader import Grader, grader_version
from lco.grading.latex import clean
from lco.grading.numeric import Tolerance

MAX_VOTING_SAMPLES = 64
"""Of more samples per problem, no majority is counted: its time grows with their cube."""


def score_math(
    rows: Iterable[Mapping[str, Any]],
    extraction: Literal["boxed", "any"] = "boxed",
    grader: Grader | None = None,
    *,
    tolerance: Tolerance = Tolerance(),
    progress: Callable[[int], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Verdicts of rows, and the figures they make.

    Args:
        rows: `{id, completion | answer, reference}`, read once and as they are needed. A `completion` is a text in
            which the answer is looked for, an `answer` is one as it stands (null where there is none). Rows that share
            an id are samples of one problem.
        extraction: where the answer of a completion stands.
        grader: one that is open; otherwise one is opened and closed here.
        progress: called with the number of rows graded so far.

    Returns:
        One row `{id, verdict, correct, extracted, reason}` per row, in their order, `correct` null where our side
        failed; and the summary. Rates are fractions.

    Raises:
        ValueError: a row is not what it should be; the message has its number, from 1.
    """
    if extraction not in ("boxed", "any"):
        raise ValueError(f"extraction: {extraction!r} is neither `boxed` nor `any`")
    identities: list[str | int] = []
    grades: dict[int, Grade] = {}
    with ExitStack() as stack:
        grader = grader or stack.enter_context(Grader())
        for position, grade in grader.run_all(_questions(rows, extraction, tolerance, grader, identities)):
            grades[position] = grade
            if progress is not None:
                progress(len(grades))
    ordered = [grades[position] for position in range(len(grades))]
    if not ordered:
        raise ValueError("rows: there are none")
    return [
        {
            "id": identity,
            "verdict": grade.verdict,
            "correct": None if grade.value is None else grade.is_correct,
            "extracted": grade.extracted,
            "reason": grade.reason,
        }
        for identity, grade in zip(identities, ordered, strict=True)
    ], _summary(identities, ordered, extraction)


def _questions(
    rows: Iterable[Mapping[str, Any]],
    extraction: str,
    tolerance: Tolerance,
    grader: Grader,
    identities: list[str | int],
) -> Iterator[Callable[[], Grade]]:
    """One call per row that grades it; notes the rows' ids on the way."""
    for number, row in enumerate(rows, start=1):
        identity = row.get("id")
        if not isinstance(identity, str | int) or isinstance(identity, bool):
            raise ValueError(f"row {number}: `id` is neither a text nor an integer")
        reference = _text(number, "reference", row.get("reference"))
        has_both = row.get("completion") is not None and row.get("answer") is not None
        if has_both or not ("completion" in row or "answer" in row):
            raise ValueError(f"row {number}: has not exactly one of `completion` and `answer`")
        identities.append(identity)
        if row.get("completion") is not None or "answer" not in row:
            completion = _text(number, "completion", row["completion"])
            yield functools.partial(grader.grade, completion, reference, extraction, tolerance)
        else:
            answer = "" if row["answer"] is None else _text(number, "answer", row["answer"])
            yield functools.partial(grader.grade_answer, answer, reference, tolerance)


def _text(number: int, field: str, value: object) -> str:
    """A text, or a number as one; 27.0 is 27."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"row {number}: `{field}` is no text")
    return value


def _summary(identities: list[str | int], grades: list[Grade], extraction: str) -> dict[str, Any]:
    """Figures over problems; samples that our side failed to grade are left out and counted."""
    problems: dict[str | int, list[Grade]] = {}
    for identity, grade in zip(identities, grades, strict=True):
        of_problem = problems.setdefault(identity, [])
        if grade.value is not None:
            of_problem.append(grade)
    samples = [some for some in problems.values() if some]
    counts = [(len(some), sum(grade.is_correct for grade in some)) for some in samples]
    fewest = min((number for number, _ in counts), default=0)
    verdicts = Counter(grade.verdict for grade in grades)
    summary: dict[str, Any] = {"pass@1": mean_pass_at_k(counts, 1)}
    k = 2
    while k <= fewest:
        summary[f"pass@{k}"] = mean_pass_at_k(counts, k)
        k *= 2
    if 2 <= fewest <= MAX_VOTING_SAMPLES:
        summary[f"maj@{fewest}"] = mean_of([_majority(some, fewest) for some in samples])
    return summary | {
        "clustered_standard_error": clustered_standard_error([correct / number for number, correct in counts]),
        "naive_standard_error": naive_standard_error(
            sum(number for number, _ in counts), sum(correct for _, correct in counts)
        ),
        "num_problems": len(problems),
        "num_rows": len(grades),
        "num_unscored": verdicts["error"],
        "verdicts": {verdict: verdicts[verdict] for verdict in get_args(Verdict)},
        "extraction": extraction,
        "grader": grader_version(),
    }


def _majority(grades: list[Grade], k: int) -> float | None:
    answers = [None if grade.extracted is None else clean(grade.extracted) for grade in grades]
    return maj_at_k(answers, [grade.is_correct for grade in grades], k)
