"""Final answers: found, read as exact numbers, compared; hostile text is wrong, never an exception."""

import gzip
import json
import os
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.answers import (
    EXTRACTIONS,
    extract_boxed,
    extract_final_number,
    extract_last_equals,
    grade,
    is_equivalent,
    parse_number,
)

DATA = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data"))


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("7+5=12;12+9=21", "21"),
        ("7+5=", None),
        ("7+5= 12 ", "12"),
        ("no sum at all", None),
        ("", None),
    ],
)
def test_last_equals_is_what_follows_the_last_equals_sign(completion, answer):
    assert extract_last_equals(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{ 7 }", "7"),
        (r"\boxed{open", None),
        (r"\boxed{}", None),
        (r"\boxed 3", "3"),
        ("", None),
    ],
)
def test_boxed_is_the_contents_of_the_last_box(completion, answer):
    assert extract_boxed(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("She has 3 and then 1,234.5 apples", "1,234.5"),
        ("it is -7.", "-7"),
        ("first 9\n#### 18", "18"),
        (r"\boxed{5} of 6", "5"),
        ("none", None),
        ("####", None),
        ("12 ####", "12"),
    ],
)
def test_final_number_prefers_a_box_then_a_marked_line_then_the_last_number(completion, answer):
    assert extract_final_number(completion) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        (" 18. ", 18),
        ("-3", -3),
        ("+3", 3),
        ("1,234,567", 1234567),
        ("$1,000.50", Fraction(2001, 2)),
        ("1,000.99$", Fraction(100099, 100)),
        (r"\$5", 5),
        ("50%", 50),
        (r"50\%", 50),
        (".5", Fraction(1, 2)),
        ("0.10", Fraction(1, 10)),
        ("10/4", Fraction(5, 2)),
        ("4.5e3", 4500),
        ("2E-2", Fraction(1, 50)),
        ("27.0", 27),
    ],
)
def test_a_plain_number_is_read_exactly(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        "$",
        "%",
        "/",
        "1/",
        "/2",
        "1/0",
        "e5",
        "-e5",
        "1..2",
        "1,00",
        "12,34",
        "0x10",
        "1_000",
        "1 2",
        "nan",
        "inf",
        "½",
        "²",
        "٣",
        "x",
        "1e999999",
        "1e10001",
        "1$2",
    ],
)
def test_anything_else_is_no_number(text):
    assert parse_number(text) is None


def test_numbers_are_compared_exactly_and_text_without_white_space():
    assert is_equivalent("0.1", "1/10")
    assert not is_equivalent("0.1", "0.10000000000000000001")
    assert is_equivalent("1e10000", "1" + "0" * 3000 + "e7000")
    assert is_equivalent(r"\frac{1} {2}", r"\frac{1}{2}")
    assert not is_equivalent("abc", "ABC")
    assert not is_equivalent("12", "twelve")


def test_a_completion_without_an_answer_is_told_from_a_wrong_one():
    assert grade("7+5=12", "12", "last-equals").verdict == "correct"
    assert grade("7+5=13", "12", "last-equals").verdict == "wrong"
    none = grade("hm", "12", "last-equals")
    assert (none.verdict, none.extracted, none.is_correct) == ("no_answer", None, False)


HOSTILE = {
    "digits": "9" * 200_000,
    "boxed digits": r"\boxed{" + "9" * 200_000 + "}",
    "exponent": "=1e999999999999999999",
    "tower": "=9" + "^9" * 10_000,
    "nested": r"\boxed{" * 50_000,
    "nested and closed": r"\boxed{" * 20_000 + "}" * 20_000,
    "braces": r"\boxed{" + "{" * 100_000 + "}" * 100_000 + "}",
    "factorial": r"\boxed{9999999999!}",
    "NUL": "=1\x002\x00",
    "commas": "=" + "1,111" * 50_000,
    "dots": "=" + "1.1" * 50_000,
    "minus": "-" * 100_000 + "1",
    "equals": "=" * 100_000,
    "slashes": "=" + "1/" * 50_000,
    "marks": "####" * 50_000,
    "white space": "=" + " " * 200_000,
    "unicode digits": "=" + "٣" * 10_000,
    "surrogate": "=\udc80",
    "code": "=__import__('os').system('true')",
    "division by zero": "=1/0",
    "big fraction": "=" + "7" * 3000 + "/" + "3" * 900,
    "long decimals": "=0." + "1" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("extraction", EXTRACTIONS)
def test_hostile_text_is_graded_fast_and_never_raises(name, extraction):
    started = time.process_time()
    for reference in ("12", "", r"\frac{1}{2}"):
        result = grade(HOSTILE[name], reference, extraction)
        assert not result.is_correct
        assert result.extracted is None or len(result.extracted) <= 4096
    assert time.process_time() - started < 0.5


TEXT = st.lists(
    st.sampled_from([*"0123456789.,=+-/eE{}#$% \x00\n٣²½é\u2028😀", r"\boxed{", r"\fbox{", r"\frac", "####"])
).map("".join)


@given(TEXT, TEXT, st.sampled_from(sorted(EXTRACTIONS)))
def test_no_text_raises(completion, reference, extraction):
    grade(completion, reference, extraction)


@given(st.text(alphabet="0123456789.,/eE+-$% ", max_size=30), st.text(alphabet="0123456789.,/eE+-$% ", max_size=30))
def test_equivalence_is_symmetric_and_no_number_like_text_raises(first, second):
    assert is_equivalent(first, second) == is_equivalent(second, first)
    assert is_equivalent(first, first)


def research_data(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is absent: it is research data that the project does not carry")
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.splitlines()]


def test_plain_numbers_of_the_peers_test_suites_are_graded_as_the_peers_do():
    num_checked = 0
    for row in research_data("math_grading/cases_dev.jsonl"):
        if row["pred"].count(r"\boxed") > 1:
            continue  # which of several boxes is the answer is a convention; ours is the last
        answer = extract_boxed(row["pred"]) if r"\boxed" in row["pred"] else row["pred"]
        is_plain = answer is not None and parse_number(answer) is not None and parse_number(row["gold"]) is not None
        if row["tier"] in ("core", "core_sci") and is_plain:
            assert is_equivalent(answer, row["gold"]) == row["expected"], row
            num_checked += 1
    assert num_checked >= 10


def test_every_gsm8k_solution_is_correct_by_its_own_answer():
    for row in research_data("math/gsm8k_test.jsonl.gz"):
        assert grade(row["answer"], row["answer"].rpartition("####")[2].strip(), "final-number").is_correct, row


def test_real_completions_get_the_verdicts_that_a_peers_grader_gave_them():
    rows = research_data("math_grading/model_outputs/rho_math_1b_gsm8k.jsonl.gz")
    num_equal = sum(
        grade(row["completion"], row["reference_answer"], "final-number").is_correct == row["peer_verdict"]
        for row in rows
    )
    assert num_equal >= len(rows) - 7  # in seven rows the peer compares `80+150=230` as text, or calls 0.02 hours 2
