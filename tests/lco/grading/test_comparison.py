"""Answers against references: rewrites are accepted, near misses refused, in every kind of answer."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.grading.comparison import Context, is_equal
from lco.grading.grader import Grader, reference_answer
from lco.grading.latex import clean
from lco.grading.numeric import Tolerance
from tests.lco.grading.cases import CASES

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[3].parent / "shared/data"))


@pytest.mark.parametrize("kind", CASES)
def test_rewrites_are_accepted_and_near_misses_refused(grader, kind):
    judged = [
        (reference, answer, grader.grade_answer(answer, reference).verdict) for reference, answer, _ in CASES[kind]
    ]
    expected = [(reference, answer, "correct" if correct else "wrong") for reference, answer, correct in CASES[kind]]
    assert judged == expected


@pytest.mark.parametrize("kind", CASES)
def test_every_reference_equals_itself_in_a_box(grader, kind):
    for reference, _, _ in CASES[kind]:
        assert grader.grade(rf"so \boxed{{{reference}}}.", reference).is_correct, reference


def shared_rows(name: str) -> list[dict[str, object]]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent: it is research data that the project does not carry")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_cases_of_the_peers_are_all_right_and_none_is_a_false_accept(grader):
    conventions = {"m028", "m181", "m326"}
    """A line break inside `$...$`; an inequality for an interval; the order of a list."""
    for row in shared_rows("math_grading/cases_dev.jsonl"):
        if row["kind"] == "answer_only":
            grade = grader.grade_answer(row["pred"], row["gold"])
        else:
            grade = grader.grade(row["pred"], row["gold"], "any")
        if row["tier"] in ("core", "core_sci"):
            assert grade.is_correct == row["expected"], row
        elif row["id"] not in conventions:
            assert not grade.is_correct or row["expected"], row


@pytest.mark.parametrize(
    ("name", "reference", "answer", "count"),
    [
        ("math500_test", "solution", "answer", 500),
        ("minerva_math_test", "solution", "solution", 272),
        ("amc23_test", "answer", "answer", 40),
    ],
)
def test_every_reference_answer_equals_its_own_solution(grader, name, reference, answer, count):
    rows = shared_rows(f"math/{name}.jsonl")
    assert len(rows) == count
    for row in rows:
        boxed = rf"\boxed{{{reference_answer(str(row[answer]))}}}"
        assert grader.grade(boxed, str(row[reference])).is_correct, row


def undecidable(answer: str, reference: str) -> bool:
    return False


CONTEXT = Context(Tolerance(), undecidable)
PIECES = st.lists(
    st.sampled_from(
        [*"0123456789.,=+-/eE{}()[]|#$%^_ xyi:;\x00\n٣²½°π√\ud800", r"\frac", r"\sqrt", r"\text{", r"\pm", r"\cup",
         r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", "&", r"\overline{", r"\in", " and ", "cm", "million", "p.m."]
    )
).map("".join)  # fmt: skip


@given(PIECES, PIECES)
def test_no_text_raises(answer, reference):
    is_equal(answer, reference, CONTEXT)


@given(PIECES)
def test_an_answer_equals_itself_whatever_it_says(text):
    assert is_equal(text, text, CONTEXT) == bool(clean(text))


@given(PIECES)
def test_the_one_spelling_is_found_in_one_pass_or_stays_itself(text):
    cleaned = clean(text)
    assert is_equal(cleaned, text, CONTEXT) == bool(cleaned) or clean(cleaned) != cleaned


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_equal_only_if_they_are(first, second):
    written = (str(first), f"{first:,}", f"{first}.0", rf"\text{{{first}}}", f"x = {first}", rf"{first}\text{{ cm}}")
    for text in written:
        assert is_equal(text, str(first), CONTEXT)
        assert is_equal(text, str(second), CONTEXT) == (first == second)


@given(st.permutations(["1", "2", r"\frac{1}{3}", "-4.5"]))
def test_sets_have_no_order_and_tuples_have_one(items):
    ordered = ["1", "2", r"\frac{1}{3}", "-4.5"]
    assert is_equal(rf"\{{{', '.join(items)}\}}", rf"\{{{','.join(ordered)}\}}", CONTEXT)
    assert is_equal(f"({', '.join(items)})", f"({','.join(ordered)})", CONTEXT) == (items == ordered)


def test_what_a_benchmark_calls_near_enough_is_its_own():
    rounded = Context(Tolerance(0.01, for_exact=True), undecidable)
    assert is_equal("6640", "6630", rounded)
    assert not is_equal("6640", "6630", CONTEXT)
    assert not is_equal("6800", "6630", rounded)
    assert is_equal("0", "0", rounded)
    assert not is_equal("0.001", "0", rounded)


def test_a_grader_without_computer_algebra_still_knows_numbers(monkeypatch):
    monkeypatch.setattr("lco.grading.pool.WORKER", Path("/nonexistent/worker.py"))
    with Grader(num_workers=1) as grader:
        assert grader.grade_answer("1/2", "0.5").is_correct
        failed = grader.grade_answer(r"\sqrt{8}", r"2\sqrt{2}")
    assert failed.verdict == "error"
    assert failed.value is None
    assert "math-verify" in failed.reason
