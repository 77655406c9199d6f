"""Rule rewards."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from lco.answers import GraderFailure
from lco.config import ExactAnswer
from lco.grading.grader import Grader
from lco.prompts import Prompt
from lco.reward_config import Reward, StepVerifier
from lco.rewards import Graded, rule_reward, tokens_per_step

PROMPT = Prompt(id="sums/1+2=", text="1+2=", reference="3")


@pytest.mark.parametrize(
    ("completion", "expected"), [("1+2=3", (1.0, True)), ("1+2=4", (-1.0, False)), ("", (-1.0, False))]
)
def test_a_correct_answer_earns_the_one_reward_and_anything_else_the_other(completion, expected):
    assert rule_reward(ExactAnswer(extraction="last-equals"), PROMPT, completion) == Graded(*expected)


def test_rewards_are_those_of_the_configuration():
    config = ExactAnswer(extraction="last-equals", correct=0.5, incorrect=0.0)
    assert rule_reward(config, PROMPT, "=3") == Graded(0.5, True)
    assert rule_reward(config, PROMPT, "=4") == Graded(0.0, False)


def test_a_formula_earns_its_reward_where_the_comparison_is_math():
    prompt = Prompt(id="p", text="?", reference=r"2\sqrt{2}")
    assert not rule_reward(ExactAnswer(), prompt, r"\boxed{\sqrt{8}}").is_correct
    config = ExactAnswer(comparison="math")
    assert rule_reward(config, prompt, r"\boxed{\sqrt{8}}") == Graded(1.0, True)
    assert rule_reward(config, prompt, r"\boxed{\sqrt{7}}") == Graded(-1.0, False)
    assert rule_reward(config, prompt, r"\boxed{(10^8)!}") == Graded(-1.0, False, is_timed_out=True)


def test_a_grader_that_fails_is_no_reward(monkeypatch):
    with Grader(num_workers=1) as broken:
        monkeypatch.setattr("lco.grading.pool.WORKER", Path("/nonexistent/worker.py"))
        monkeypatch.setattr("lco.answers.shared_grader", lambda: broken)
        with pytest.raises(GraderFailure, match="could not be graded"):
            rule_reward(ExactAnswer(comparison="math"), PROMPT, r"\boxed{\sqrt{9}}")


def test_the_exact_comparison_starts_no_process():
    code = (
        "from lco.config import ExactAnswer; from lco.prompts import Prompt; from lco.rewards import rule_reward\n"
        "from lco.grading.grader import shared_grader\n"
        "rule_reward(ExactAnswer(), Prompt('p', '?', 'x+1'), r'\\boxed{1+x}'); print(shared_grader().process_ids())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_prompt_without_a_reference_is_never_answered_correctly():
    prompt = Prompt(id="p", text="?", reference="")
    assert not rule_reward(ExactAnswer(), prompt, r"\boxed{}").is_correct


def test_a_token_belongs_to_the_step_that_it_begins_in():
    assert tokens_per_step(["1+2=3", ";3", "+4=", "7", ""], [6, 11, 12]) == [2, 2, 1]
    assert tokens_per_step(["1+2=3"], [6, 11, 12]) == [1, 0, 0]
    assert tokens_per_step([], [1]) == [0]


def test_steps_earn_their_own_rewards_and_the_completion_their_mean():
    prompt = Prompt(id="p", text="1+2+4=", reference="7")
    config = StepVerifier(verifier="sums", extraction="last-equals", correct=1.0, incorrect=-0.5)
    graded = rule_reward(config, prompt, "1+2=3;3+4=8", [*"1+2=3;3+4=8", ""])
    assert graded == Graded(pytest.approx(0.5), False, (1.0, -0.5, 1.0), (6, 5, 1))
    truncated = rule_reward(config, prompt, "1+2=3;", [*"1+2=3;"])
    assert truncated == Graded(1.0, False, (1.0,), (6,)), "a step that no token began earns nothing"


def test_a_reward_without_a_name_is_that_of_the_answer():
    adapter = TypeAdapter(Reward)
    assert adapter.validate_python({"extraction": "boxed"}) == ExactAnswer(extraction="boxed")
    assert adapter.validate_python({"name": "step-verifier"}) == StepVerifier()
    for wrong in ({"name": "other"}, {"verifier": "sums"}, "boxed"):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
