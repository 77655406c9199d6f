"""Math rows from anywhere: verdicts in order, figures over problems, published figures again."""

import gzip
import json
import os
from pathlib import Path

import pytest

from evaluation.scoring.math import score_math
from lco.grading.grader import Grader

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data"))


@pytest.fixture(scope="module")
def grader():
    with Grader(num_workers=1) as grader:
        yield grader


ROWS = [
    {"id": "a", "completion": r"so \boxed{4}", "reference": "4"},
    {"id": "a", "completion": r"so \boxed{5}", "reference": "4"},
    {"id": "b", "completion": "no idea", "reference": "4"},
    {"id": "b", "answer": r"\frac{8}{2}", "reference": 4},
    {"id": "c", "answer": None, "completion": None, "reference": "1"},
    {"id": "c", "answer": 27.0, "reference": 27},
]


def test_each_row_has_its_verdict_in_order_and_each_problem_its_share(grader):
    rows, summary = score_math(iter(ROWS), grader=grader)
    assert [row["id"] for row in rows] == ["a", "a", "b", "b", "c", "c"]
    assert [row["verdict"] for row in rows] == ["correct", "wrong", "no_answer", "correct", "no_answer", "correct"]
    assert [row["correct"] for row in rows] == [True, False, False, True, False, True]
    assert [row["extracted"] for row in rows] == ["4", "5", None, r"\frac{8}{2}", None, "27"]
    assert summary["pass@1"] == 0.5
    assert summary["pass@2"] == 1.0
    assert "pass@4" not in summary
    assert (summary["num_problems"], summary["num_rows"], summary["num_unscored"]) == (3, 6, 0)
    assert summary["verdicts"] == {"correct": 3, "wrong": 1, "no_answer": 2, "timeout": 0, "error": 0, "skipped": 0}
    assert "math-verify" in summary["grader"]
    json.dumps([rows, summary], allow_nan=False)


def test_any_finds_an_answer_without_a_box_and_boxed_does_not(grader):
    rows = [{"id": 1, "completion": "In total 7 apples.", "reference": "7"}]
    assert score_math(rows, "any", grader)[1]["pass@1"] == 1.0
    assert score_math(rows, "boxed", grader)[0][0]["verdict"] == "no_answer"


def test_problems_with_fewer_samples_leave_larger_k_out(grader):
    rows = [{"id": "a", "answer": "1", "reference": "1"}] * 4 + [{"id": "b", "answer": "1", "reference": "2"}]
    summary = score_math(rows, grader=grader)[1]
    assert summary["pass@1"] == 0.5
    assert "pass@2" not in summary


def test_a_failure_of_ours_is_no_value_and_counted(monkeypatch):
    monkeypatch.setattr("lco.grading.pool.WORKER", Path("/nonexistent/worker.py"))
    rows = [{"id": 1, "answer": r"\sqrt{8}", "reference": r"2\sqrt{2}"}, {"id": 2, "answer": "3", "reference": "4"}]
    scored, summary = score_math(rows)
    assert scored[0]["correct"] is None
    assert scored[0]["verdict"] == "error"
    assert summary["pass@1"] == 0.0
    assert summary["num_unscored"] == 1


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"completion": "x", "reference": "1"}, "row 2: `id`"),
        ({"id": True, "completion": "x", "reference": "1"}, "row 2: `id`"),
        ({"id": 1, "completion": "x"}, "row 2: `reference` is no text"),
        ({"id": 1, "reference": "1"}, "row 2: has not exactly one of `completion` and `answer`"),
        ({"id": 1, "completion": "1", "answer": "1", "reference": "1"}, "row 2: has not exactly one"),
        ({"id": 1, "completion": None, "reference": "1"}, "row 2: `completion` is no text"),
    ],
)
def test_a_bad_row_is_named_by_number_and_field(grader, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_math([{"id": 1, "answer": "1", "reference": "1"}, row], grader=grader)


def test_no_rows_and_another_extraction_are_refused(grader):
    with pytest.raises(ValueError, match="there are none"):
        score_math([], grader=grader)
    with pytest.raises(ValueError, match="neither `boxed` nor `any`"):
        score_math(ROWS, "last", grader)


def test_progress_counts_the_rows(grader):
    seen = []
    score_math(ROWS, grader=grader, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_the_figures_do_not_depend_on_the_order_of_rows(grader):
    forward, backward = score_math(ROWS, grader=grader)[1], score_math(ROWS[::-1], grader=grader)[1]
    assert forward == backward


def shared_rows(name):
    path = SHARED / "math_grading/model_outputs" / name
    if not path.exists():
        pytest.skip(f"{path} is absent: it is research data that the project does not carry")
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_eight_samples_of_a_model_give_the_published_figures(grader):
    rows = [
        {"id": row["idx"], "completion": completion, "reference": row["reference_answer"]}
        for row in shared_rows("qwen25_math_n8_first50.jsonl.gz")
        for completion in row["completions"]
    ]
    summary = score_math(rows, grader=grader)[1]
    published = json.loads((SHARED / "math_grading/model_outputs/qwen25_math_n8_first50.metrics.json").read_text())
    for metric in ("pass@1", "pass@2", "pass@4", "pass@8", "maj@8"):
        assert 100 * summary[metric] == pytest.approx(published[metric], abs=1e-9)
    assert 100 * summary["clustered_standard_error"] == pytest.approx(published["pass@1_clustered_se"], abs=1e-9)


@pytest.mark.parametrize(("name", "adjudicated"), [("rho_math_1b_math500", 17.0), ("rho_math_1b_gsm8k", 36.16)])
def test_a_models_completions_score_near_what_people_adjudicated(grader, name, adjudicated):
    rows = [
        {"id": row["idx"], "completion": row["completion"], "reference": row["reference_answer"]}
        for row in shared_rows(f"{name}.jsonl.gz")
    ]
    assert 100 * score_math(rows, "any", grader)[1]["pass@1"] == pytest.approx(adjudicated, abs=0.4)
