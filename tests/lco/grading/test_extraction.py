"""Where an answer stands: boxes, declared lines, last patterns; no text raises or takes long."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lco.grading.extraction import EXTRACTIONS, extract_any, extract_final_answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"\boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {4}", "4"),
        (r"\boxed{1} ... \boxed{2", None),
        (r"\boxed{255} so. Final Answer: The final answer is $10,455$. I hope it is correct.", "10,455"),
        (r"The final answer is 7, or rather \boxed{8}.", "8"),
        ("Final Answer: The final answer is $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("Final Answer: The volume of $ABCDEFGH$ is 120. I hope it is correct.", "120"),
        ("**Final Answer**\n\n\\boxed{12}", "12"),
        ("**Answer:** 42", "42"),
        ("Answer:\n$$x = 5$$", "x = 5"),
        ("ANSWER: (B)", "(B)"),
        ("The answer is 18.", "18"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is Evelyn.", "Evelyn"),
        ("So the answer is 5 because 2 + 3 = 5.", "5"),
        ("The answer is $5$ meters.", "5 meters"),
        ("The final answer is $1$ and $-2$.", "1, -2"),
        ("She has 9 left.\n#### 18", "18"),
        ("#### Step 3\nWe add.\n\nThe answer is 4", "4"),
        (r"The answer is clearly \boxed{6}.", "6"),
        (r"<think>\boxed{1}? no</think> The answer is 2.", "2"),
        (r"<think>\boxed{1}</think> done", "1"),
        ("So 12 it is, I think.", None),
        ("The answer is one of the many numbers that nobody has ever seen before in this place", None),
        ("", None),
    ],
)
def test_boxed_takes_the_last_box_or_the_declared_answer_and_nothing_else(completion, answer):
    assert extract_final_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"first \boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{-2}", "1, -2"),
        (r"$\boxed{1}$, $\boxed{2}$", "1, 2"),
        ("the number is not 10 which is 1,000.99€", "1,000.99"),
        ("We find that $x < 3$.", "x < 3"),
        ("$28$ percent", "28 %"),
        ("28 percent", "28 percent"),
        (r"\frac{6\sqrt{2}}{5}", r"\frac{6\sqrt{2}}{5}"),
        ("(3*sqrt(5))/7", "(3*sqrt(5))/7"),
        ("so **25%**.", "25%"),
        ("因此，总共有192公斤。", "192"),
        ("between $3$ and $4$", "3, 4"),
        ("it is 3/4 of the cake", "3/4"),
        ("= |x - 15| + |p - 15|", "= |x - 15| + |p - 15|"),
        ("we get |x-15|", None),
        ("nothing here", None),
    ],
)
def test_any_takes_the_last_answer_pattern(completion, answer):
    assert extract_any(completion) == answer


LONG = {
    "prose": "the answer is that " * 120_000,
    "dollars": "$" * 2_000_000,
    "boxes": r"\boxed{" * 300_000,
    "closed boxes": r"\boxed{1} and " * 150_000,
    "braces": r"\boxed{" + "{" * 1_000_000,
    "numbers": "1,234 " * 300_000,
    "minus": "-" * 2_000_000,
    "digits": "9" * 2_000_000,
    "marks": "####" * 500_000,
    "finals": "final answer" * 160_000,
    "white space": " " * 2_000_000,
    "brackets": r"\(" * 1_000_000,
    "backslashes": "\\" * 2_000_000,
    "stars": "*" * 2_000_000,
    "calculation": "1+" * 1_000_000,
    "is": "answer is " + "is " * 600_000,
}


@pytest.mark.parametrize("name", LONG)
def test_two_megabytes_of_anything_are_searched_in_a_blink(name):
    for extract in EXTRACTIONS.values():
        started = time.process_time()
        extract(LONG[name])
        assert time.process_time() - started < 1.0


TEXT = st.lists(
    st.sampled_from(
        [*"0123456789.,=+-/e{}#$%*:;() \x00\n²½\ud800😀", r"\boxed{", r"\fbox{", r"\frac", "####", "Answer:",
         " answer is ", "final answer", r"\(", r"\)", r"\[", r"\]", "$$", "</think>", " and ", "**"]
    )
).map("".join)  # fmt: skip


@given(TEXT, st.sampled_from(sorted(EXTRACTIONS)))
def test_no_text_raises_and_no_answer_is_blank(text, extraction):
    answer = EXTRACTIONS[extraction](text)
    assert answer is None or answer.strip()
