"""Responses to QA-Feedback's questions scored by its three reward models: `lco score qa-feedback`."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lco.oracles.qa_feedback import QaFeedbackScorer, Response, Score

NOTE = (
    "relevance and factuality are weighted by (sub)sentence counts over the set, "
    "completeness and reward are plain means"
)
_BATCH_ROWS = 64


@dataclass(frozen=True, slots=True)
class QaFeedbackScores:
    """Scores of a set of responses."""

    rows: list[dict[str, Any]]
    """One per input row: its `id` and the fields of `lco.oracles.qa_feedback.Score`."""
    aggregate: dict[str, Any]
    """`n`, `relevance`, `factuality`, `completeness`, `reward`, and a note on how they are averaged."""
    notes: dict[str, int]
    """How many responses were scored otherwise than by the original code, by reason."""


def score_qa_feedback(
    rows: Iterable[Mapping[str, Any]],
    scorer: QaFeedbackScorer,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> QaFeedbackScores:
    """Scores rows `{id, question, prompt, response}`.

    Args:
        progress: told how many of how many rows are done.

    Raises:
        ValueError: a row is not of this form; the message names its number, from 1.
    """
    inputs = [_input(number, row) for number, row in enumerate(rows, start=1)]
    if not inputs:
        raise ValueError("there is no row")
    scores: list[Score] = []
    for start in range(0, len(inputs), _BATCH_ROWS):
        scores += scorer.scores([response for _, response in inputs[start : start + _BATCH_ROWS]])
        progress(len(scores), len(inputs))
    scored = [{"id": identifier, **score.row()} for (identifier, _), score in zip(inputs, scores, strict=True)]
    notes = Counter(note for score in scores for note in score.notes)
    return QaFeedbackScores(scored, aggregate(scores), dict(sorted(notes.items())))


def aggregate(scores: Sequence[Score]) -> dict[str, Any]:
    """The figures of a set; a ratio is None where no response has a unit."""
    num_sub_sentences, num_sentences = (
        sum(score.n_sub_sentences for score in scores),
        sum(score.n_sentences for score in scores),
    )
    return {
        "n": len(scores),
        "relevance": sum(score.n_relevant for score in scores) / num_sub_sentences if num_sub_sentences else None,
        "factuality": sum(score.n_factual for score in scores) / num_sentences if num_sentences else None,
        "completeness": math.fsum(score.completeness_normalised for score in scores) / len(scores),
        "reward": math.fsum(score.reward_sum for score in scores) / len(scores),
        "note": NOTE,
    }


def _input(number: int, row: Mapping[str, Any]) -> tuple[Any, Response]:
    for field in ("question", "prompt", "response"):
        if not isinstance(row.get(field), str):
            raise ValueError(f"row {number}: has no text field {field!r}")
    return row.get("id", number - 1), Response(row["question"], row["prompt"], row["response"])
