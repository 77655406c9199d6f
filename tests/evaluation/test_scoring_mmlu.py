"""`lco score mmlu`: rows in, verdicts and accuracies out."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from evaluation.scoring.mmlu import score_mmlu

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data")) / "mmlu"


def row(subject="law", identifier=0, prediction="A", answer="A", **changes):
    return {"subject": subject, "id": identifier, "prediction": prediction, "answer": answer} | changes


ROWS = [
    row("law", 0, "A", "A", error_type="ok"),
    row("law", 1, "B", "A", error_type="ok"),
    row("law", 2, None, "A", error_type="expert"),
    row("art", 0, "C", "C", error_type="ok"),
    row("art", 1, None, "C", error_type="ok"),
    row("art", 2, "D", "D", error_type="bad_question_clarity"),
]


def test_figures_are_told_of_all_of_answered_and_of_ok_questions():
    rows, figures = score_mmlu(ROWS)
    assert [one["verdict"] for one in rows] == ["correct", "wrong", "no_answer", "correct", "no_answer", "correct"]
    assert (figures["micro"], figures["macro"]) == (0.5, 0.5)
    assert figures["answered_only"] == {"micro": 0.75, "macro": 0.75, "n": 4}
    assert figures["ok"] == {"micro": 0.5, "macro": 0.5, "n": 4}
    assert (figures["n"], figures["n_unanswered"]) == (6, 2)
    assert figures["subjects"]["law"] == {
        "accuracy": pytest.approx(1 / 3),
        "n": 3,
        "standard_error": pytest.approx((2 / 9 / 3) ** 0.5),
        "n_answered": 2,
        "accuracy_answered": 0.5,
    }
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"),
        (" b ", "B"),
        (1, "B"),
        ("The answer is B.", "B"),
        ("B. Paris", "B"),
        ("E", "E"),
        (7, "7"),
        (None, None),
        ("", None),
        ("A thought", None),
        ("\ud800", None),
    ],
)
def test_a_prediction_is_a_letter_a_number_or_a_declaration(prediction, letter):
    (one,), _ = score_mmlu([row(prediction=prediction, answer="B")])
    assert (one["prediction"], one["correct"]) == (letter, letter == "B")


@pytest.mark.parametrize("answer", ["C", "c", 2])
def test_a_key_is_a_letter_or_a_number(answer):
    assert score_mmlu([row(prediction="C", answer=answer)])[1]["micro"] == 1.0


def test_rows_without_error_types_have_no_ok_part():
    assert score_mmlu([row()])[1]["ok"] == {"micro": None, "macro": None, "n": 0}


def test_nothing_answered_is_no_accuracy_of_answered_questions():
    figures = score_mmlu([row(prediction=None)])[1]
    assert (figures["micro"], figures["answered_only"]) == (0.0, {"micro": None, "macro": None, "n": 0})
    assert figures["subjects"]["law"]["accuracy_answered"] is None


def test_the_order_of_rows_changes_no_figure():
    _, figures = score_mmlu(ROWS)
    for seed in range(5):
        assert score_mmlu(random.Random(seed).sample(ROWS, len(ROWS)))[1] == figures


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "there is no row"),
        ([row(), row(identifier=1, answer="E")], "row 2: answer is 'E'"),
        ([row(answer=4)], "row 1: answer is 4"),
        ([row(answer=True)], "row 1: answer is True"),
        ([row(subject=None)], "row 1: subject is None"),
        ([row(prediction=0.5)], "row 1: prediction is neither"),
        ([row(prediction=["A"])], "row 1: prediction is neither"),
        ([row(identifier=None)], "row 1: id is neither"),
        ([row(error_type=1)], "row 1: error_type is 1"),
        ([{"subject": "law", "id": 0, "answer": "A"}], "row 1: has no field 'prediction'"),
        ([row(), row()], "row 2: the question 0 of law is in row 1 already"),
    ],
)
def test_a_wrong_row_is_named(rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_mmlu(rows)


def test_the_keys_of_redux_score_full_marks():
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED} (see LCO_SHARED_DATA)")
    with gzip.open(SHARED / "mmlu_redux2_5700.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    _, figures = score_mmlu({**one, "id": one["index"], "prediction": one["answer"]} for one in rows)
    assert (figures["micro"], figures["n"], figures["ok"]) == (1.0, 5700, {"micro": 1.0, "macro": 1.0, "n": 5330})
    assert len(figures["subjects"]) == 57
