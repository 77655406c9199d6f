"""MMLU and MMLU-Redux predictions scored: `lco score mmlu`. No torch.

A row is `{subject, id, prediction, answer, [error_type]}`. A prediction is a letter, the number of a choice from 0, or
a text that declares a letter; null, or a text that declares none, is an unanswered question, which counts as wrong.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from evaluation.multiple_choice import LETTERS, Accuracy, Answered, accuracy, declared_letter

OK = "ok"
"""The `error_type` of a Redux question without an error."""


def score_mmlu(rows: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The verdict of each row and the accuracies of all.

    Returns:
        Rows `{subject, id, prediction, answer, verdict, correct}`, and the figures: `subjects`, then `micro` (mean over
        questions) and `macro` (mean over subjects) with an unanswered question wrong, of the answered ones alone, and
        of those whose `error_type` is `ok`.

    Raises:
        ValueError: a row is not of this form; the message names its number, from 1.
    """
    scored: list[dict[str, Any]] = []
    questions: list[Answered] = []
    is_ok: list[bool] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows, start=1):
        one, error_type = _scored(number, row)
        if (first := seen.setdefault((one["subject"], repr(one["id"])), number)) != number:
            raise ValueError(f"row {number}: the question {one['id']!r} of {one['subject']} is in row {first} already")
        scored.append(one)
        is_answered = one["verdict"] != "no_answer"
        questions.append(Answered(one["subject"], float(one["correct"]), float(is_answered)))
        is_ok.append(error_type == OK)
    if not scored:
        raise ValueError("there is no row")
    return scored, _figures(questions, [one for one, ok in zip(questions, is_ok, strict=True) if ok])


def _figures(questions: list[Answered], ok_questions: list[Answered]) -> dict[str, Any]:
    everything, answered = accuracy(questions), accuracy(questions, is_answered_only=True)
    subjects = {}
    for name, subject in everything.subjects.items():
        of_answered = answered.subjects.get(name)
        subjects[name] = {
            "accuracy": subject.value,
            "n": int(subject.num_questions),
            "standard_error": subject.stderr,
            "n_answered": int(of_answered.num_questions) if of_answered else 0,
            "accuracy_answered": of_answered.value if of_answered else None,
        }
    num_answered = int(answered.num_questions)
    return {
        "subjects": subjects,
        "micro": everything.micro,
        "macro": everything.macro,
        "n": len(questions),
        "n_unanswered": len(questions) - num_answered,
        "standard_error": {"micro": everything.micro_stderr, "macro": everything.macro_stderr},
        "answered_only": _part(answered),
        "ok": _part(accuracy(ok_questions)),
    }


def _part(some: Accuracy) -> dict[str, Any]:
    return {"micro": some.micro, "macro": some.macro, "n": int(some.num_questions)}


def _scored(number: int, row: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A row's verdict and its error type."""
    for field in ("subject", "id", "prediction", "answer"):
        if field not in row:
            raise ValueError(f"row {number}: has no field {field!r}")
    subject, error_type = row["subject"], row.get("error_type")
    if not isinstance(subject, str) or not subject:
        raise ValueError(f"row {number}: subject is {subject!r}, no name")
    if isinstance(row["id"], bool) or not isinstance(row["id"], int | str):
        raise ValueError(f"row {number}: id is neither text nor an integer")
    if error_type is not None and not isinstance(error_type, str):
        raise ValueError(f"row {number}: error_type is {error_type!r}, no text")
    answer = choice_letter(row["answer"])
    if answer is None:
        raise ValueError(f"row {number}: answer is {row['answer']!r}; write a letter, or the number of a choice from 0")
    predicted = _predicted(number, row["prediction"])
    is_correct = predicted == answer
    one = {
        "subject": subject,
        "id": row["id"],
        "prediction": predicted,
        "answer": answer,
        "verdict": "no_answer" if predicted is None else "correct" if is_correct else "wrong",
        "correct": is_correct,
    }
    return one, error_type


def _predicted(number: int, prediction: Any) -> str | None:
    """The letter of a prediction; None where there is none."""
    if prediction is None:
        return None
    if isinstance(prediction, bool) or not isinstance(prediction, int | str):
        raise ValueError(f"row {number}: prediction is neither text, nor an integer, nor null")
    if isinstance(prediction, int):
        return choice_letter(prediction) or str(prediction)
    letter = prediction.strip()
    if len(letter) == 1 and letter.isascii() and letter.isalpha():
        return letter.upper()
    return declared_letter(prediction)


def choice_letter(answer: Any) -> str | None:
    """The letter of a key: a letter itself or the number of a choice from 0; None where it is neither."""
    if isinstance(answer, str) and answer.strip().upper() in LETTERS:
        return answer.strip().upper()
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(LETTERS):
        return LETTERS[answer]
    return None
