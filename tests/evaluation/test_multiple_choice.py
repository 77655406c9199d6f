"""Declared letters, and accuracies over subjects."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.multiple_choice import Answered, accuracy, declared_letter


@pytest.mark.parametrize(
    ("completion", "letter"),
    [
        ("Answer: B", "B"),
        ("ANSWER: a", "A"),
        ("The answer is (C).", "C"),
        ("the answer is c", "C"),
        ("Reason.\n\n**Answer:** B", "B"),
        ("**Answer: B**\n", "B"),
        ("Answer:\nB. Paris", "B"),
        ("Final answer: \\(B\\)", "B"),
        ("the final answer is $B$.", "B"),
        (r"so $\boxed{\text{D}}$", "D"),
        (r"Answer: $\boxed{A}$", "A"),
        ("The correct answer is option D", "D"),
        ("The correct answer is: **(A)** because", "A"),
        ("So the answer is therefore A", "A"),
        ("Option C is correct.", "C"),
        ("The answer is C, not D.", "C"),
        ("answer: D</s>", "D"),
        ("B", "B"),
        (" B\n\nThe following are", "B"),
        ("(D) Paris", "D"),
        ("A. ", "A"),
    ],
)
def test_a_declared_letter_is_found(completion, letter):
    assert declared_letter(completion) == letter


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I do not know",
        "A man walks into a bar",
        "An answer",
        "A common answer",
        "Answer: A common mistake is this",
        "Answer: Apple",
        "The answer is a matter of taste",
        "The answer is A's friend",
        "The answer is not A",
        "Let me look at option A first.",
        "Answer: A or B",
        "Answer: A and C",
        "answer is A, B",
        "Answer: E",
        "A.B.C",
    ],
)
def test_a_stray_letter_is_no_answer(completion):
    assert declared_letter(completion) is None


def test_the_last_declaration_counts():
    assert declared_letter("I think the answer is B. Wait.\nAnswer: C") == "C"
    assert declared_letter(r"\boxed{A} is tempting, but option D is right") == "D"
    assert declared_letter("Answer: B. No: answer: A or C") is None


@given(st.text(alphabet="answer is:*_\\{}()ABCDboxed \n,$", max_size=200) | st.text(max_size=200))
def test_no_text_raises(completion):
    assert declared_letter(completion) in (None, "A", "B", "C", "D")


@pytest.mark.parametrize(
    "completion",
    [
        "answer is " * 200_000,
        "answer" + " " * 2_000_000,
        "(" * 2_000_000,
        r"\boxed{" * 100_000,
        "answer is *_" * 50_000,
    ],
    ids=range(5),
)
def test_two_megabytes_take_no_time(completion):
    started = time.monotonic()
    declared_letter(completion)
    assert time.monotonic() - started < 2


def some_questions():
    numbers = random.Random(7)
    return [
        Answered(f"s{numbers.randrange(4)}", float(numbers.random() < 0.6), float(numbers.random() < 0.8))
        for _ in range(200)
    ]


def valid(question):
    return Answered(question.subject, question.value * question.answered_share, question.answered_share)


def test_micro_is_the_mean_over_questions_and_macro_that_over_subjects():
    questions = [Answered("a", 1.0), Answered("a", 0.0), Answered("a", 0.0, 0.0), Answered("b", 1.0)]
    everything = accuracy(questions)
    assert (everything.micro, everything.macro, everything.num_questions) == (0.5, pytest.approx(2 / 3), 4)
    answered = accuracy(questions, is_answered_only=True)
    assert (answered.micro, answered.macro, answered.num_questions) == (pytest.approx(2 / 3), 0.75, 3)
    assert {name: subject.num_questions for name, subject in answered.subjects.items()} == {"a": 2, "b": 1}


def test_the_standard_error_is_binomial_and_pooled_by_size():
    found = accuracy([Answered("a", 1.0), Answered("a", 0.0), *[Answered("b", float(n < 3)) for n in range(4)]])
    assert found.subjects["a"].stderr == pytest.approx((0.25 / 2) ** 0.5)
    assert found.subjects["b"].stderr == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    pooled = (2**2 * 0.25 / 2 + 4**2 * 0.75 * 0.25 / 4) ** 0.5 / 6
    assert found.micro_stderr == pytest.approx(pooled)
    assert found.macro_stderr == pytest.approx((0.25 / 2 + 0.75 * 0.25 / 4) ** 0.5 / 2)


def test_no_question_is_no_accuracy():
    found = accuracy([Answered("a", 0.0, 0.0)], is_answered_only=True)
    assert (found.micro, found.macro, found.micro_stderr, found.num_questions) == (None, None, None, 0)


@pytest.mark.parametrize("is_answered_only", [False, True])
def test_order_changes_no_accuracy(is_answered_only):
    questions = [valid(question) for question in some_questions()]
    first = accuracy(questions, is_answered_only=is_answered_only)
    for seed in range(5):
        shuffled = random.Random(seed).sample(questions, len(questions))
        again = accuracy(shuffled, is_answered_only=is_answered_only)
        assert (again.micro, again.macro) == pytest.approx((first.micro, first.macro), abs=1e-15)
        assert {name: s.value for name, s in again.subjects.items()} == pytest.approx(
            {name: s.value for name, s in first.subjects.items()}, abs=1e-15
        )
