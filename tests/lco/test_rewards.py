"""Rule rewards."""

import pytest

from lco.config import ExactAnswer
from lco.prompts import Prompt
from lco.rewards import rule_reward

PROMPT = Prompt(id="sums/1+2=", text="1+2=", reference="3")


@pytest.mark.parametrize(
    ("completion", "expected"), [("1+2=3", (1.0, True)), ("1+2=4", (-1.0, False)), ("", (-1.0, False))]
)
def test_a_correct_answer_earns_the_one_reward_and_anything_else_the_other(completion, expected):
    assert rule_reward(ExactAnswer(extraction="last-equals"), PROMPT, completion) == expected


def test_rewards_are_those_of_the_configuration():
    config = ExactAnswer(extraction="last-equals", correct=0.5, incorrect=0.0)
    assert rule_reward(config, PROMPT, "=3") == (0.5, True)
    assert rule_reward(config, PROMPT, "=4") == (0.0, False)


def test_a_prompt_without_a_reference_is_never_answered_correctly():
    prompt = Prompt(id="p", text="?", reference="")
    assert not rule_reward(ExactAnswer(), prompt, r"\boxed{}")[1]
