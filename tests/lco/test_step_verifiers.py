"""Step verifiers, what they make of bad text, and where the credit of a step goes."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lco.advantages import compared_steps
from lco.collection import collect
from lco.config import Sums
from lco.estimation import Estimator
from lco.policy import load_policy
from lco.prompts import Prompt, load_prompts
from lco.step_verifiers import STEP_VERIFIERS, equation_steps, sums_steps
from lco.train import train
from tests.lco.launcher import metrics

SUM = Prompt(id="p", text="7+5+9=", reference="21")
STEPS = {"name": "step-verifier", "extraction": "last-equals"}


def verdicts(steps):
    return [step.is_right for step in steps]


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("7+5=12;12+9=21", [True, True, True]),
        ("7+5=13;13+9=22", [False, True, True]),  # goes on rightly from a wrong result
        ("7+5=13;12+9=21", [False, False, True]),  # the result is not the one stated
        ("7+5=12;12+8=20", [True, False, True]),  # not the prompt's term
        ("7+5=12", [True, False]),  # ends too early
        ("7+5=12;12+9=21;21+1=22", [True, True, False, False]),
        ("7+5=12;", [True, False, True]),
        ("", [False, False]),
        ("=21", [False, False]),
    ],
)
def test_a_step_of_a_sum_goes_on_from_the_stated_result(completion, expected):
    steps = sums_steps(SUM, completion)
    assert verdicts(steps) == expected
    ends = [step.end for step in steps]
    assert ends == sorted(ends) and ends[-1] == len(completion) + 1
    parts = [completion[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert "".join(parts) == completion


def test_the_demonstrations_of_sums_are_right_but_for_their_wrong_steps():
    for prompt in load_prompts(Sums(num_problems=50)):
        assert all(verdicts(sums_steps(prompt, prompt.demonstration)))
    wrong = [
        verdicts(sums_steps(p, p.demonstration)) for p in load_prompts(Sums(num_problems=200, wrong_step_rate=0.3))
    ]
    share = sum(not right for steps in wrong for right in steps[:-1]) / (200 * 5)
    assert 0.25 < share < 0.35


def test_a_prompt_that_is_no_sum_is_refused_by_name():
    with pytest.raises(ValueError, match=r"reward\.verifier: the prompt 'What is it\?' is no sum"):
        sums_steps(Prompt(id="p", text="What is it?", reference=""), "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("so 48/2 = 24 clips", True),
        ("2 * 3 + 4 = 10 and 5-1=4", True),
        ("2 + 3 * 4 = 20", False),
        ("$1,200 x 2 = $2,400", True),
        ("10 / 3 = 3.33", True),
        ("10 / 3 = 3.34", False),
        ("10 / 3 = 3", False),
        ("1 / 0 = 0", False),
        ("2 \u00d7 3 = 6, 6 \u00f7 4 = 1.5", True),
        ("-2 + 5 = 3", True),
        ("1.2.3+1=2", None),
        ("x = 3", None),
        ("no numbers here", None),
    ],
)
def test_a_line_is_right_if_all_its_equations_hold(line, expected):
    assert verdicts(equation_steps(SUM, line)) == [expected]


def test_the_lines_of_a_text_are_its_steps():
    steps = equation_steps(SUM, "1+1=2\nthen\n2+2=5")
    assert [(step.end, step.is_right) for step in steps] == [(6, True), (11, None), (17, False)]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.text(alphabet="0123456789+-*/=.,;$ x\n\u0660\u00b2\ud800a", max_size=60), st.sampled_from(sorted(STEP_VERIFIERS))
)
def test_no_text_of_a_model_makes_a_verifier_raise(text, name):
    steps = STEP_VERIFIERS[name](SUM, text)
    assert steps[-1].end == len(text) + 1


def test_long_text_is_verified_in_no_time():
    for text in ("9" * 200_000, "1+" * 100_000 + "=1", "1=" * 100_000, ";" * 100_000):
        for verifier in STEP_VERIFIERS.values():
            verifier(SUM, text)


def test_steps_are_compared_with_those_of_their_group():
    rewards, groups = torch.tensor([1.0, -1.0, -1.0, 0.5, 0.5]), torch.tensor([0, 0, 0, 1, 1])
    first = rewards[:3]
    centred = torch.cat([first - first.mean(), torch.zeros(2)])
    torch.testing.assert_close(compared_steps(rewards, groups, "group-centered"), centred)
    expected = torch.cat([(first - first.mean()) / (first.std() + 1e-4), torch.zeros(2)])
    torch.testing.assert_close(compared_steps(rewards, groups, "group-normalized"), expected)
    z = (rewards - rewards.mean()) / rewards.std()
    torch.testing.assert_close(compared_steps(rewards, groups, "batch-normalized"), z)
    assert torch.equal(compared_steps(rewards, groups, "reward"), rewards)


def batch_of(config):
    policy = load_policy(Path(config.policy), config)
    rollouts = collect(config, policy, load_prompts(config.prompts), 0)
    return rollouts, Estimator(config, policy).batch(rollouts)


def sums_config(config_of, name, reward=STEPS, **algorithm):
    base = config_of(name, prompts={"name": "sums", "num_terms": 3, "num_problems": 12}, reward=reward)
    return type(base).model_validate(base.model_dump() | {"algorithm": {"name": name} | algorithm})


@pytest.mark.parametrize("credit", ["own", "later"])
def test_the_credit_of_a_step_goes_to_its_tokens(config_of, credit):
    config = sums_config(
        config_of, "reinforce", STEPS | {"credit": credit}, advantage={"name": "sparse", "estimator": "reward"}
    )
    rollouts, batch = batch_of(config)
    expected = []
    for rollout in rollouts:
        assert sum(rollout.step_tokens) == len(rollout.completion_ids)
        rewards = rollout.step_rewards
        for number, count in enumerate(rollout.step_tokens):
            expected += [rewards[number] if credit == "own" else sum(rewards[number:])] * count
    assert any(len(rollout.step_rewards) > 1 for rollout in rollouts)
    torch.testing.assert_close(batch.advantages_N, torch.tensor(expected))


def test_with_a_critic_each_step_is_rewarded_at_its_last_token(config_of):
    advantage = {"name": "gae", "kl_weight": 0.0, "critic_lambda": 1.0}
    rollouts, batch = batch_of(sums_config(config_of, "ppo-critic", advantage=advantage))
    expected = []
    for rollout in rollouts:
        for number, count in enumerate(rollout.step_tokens):
            expected += [sum(rollout.step_rewards[number:])] * count
    torch.testing.assert_close(batch.returns_N, torch.tensor(expected))


def test_lco_learns_from_steps(config_of, stage):
    config = sums_config(config_of, "lco-kld", beta=0.5, advantage={"name": "sparse", "estimator": "group-normalized"})
    train(config, stage)
    assert all(values["train/grad_norm"] > 0 for values in metrics(stage.run_dir).values())


@pytest.mark.parametrize(
    ("algorithm", "reward", "message"),
    [
        ({"name": "gspo"}, STEPS, "gspo as configured takes a completion as a whole"),
        ({"name": "grpo", "ratio_level": "sequence"}, STEPS, "grpo as configured takes a completion as a whole"),
        ({"name": "ppo", "advantage": {"name": "sparse", "estimator": "leave-one-out"}}, STEPS, "no leave-one-out"),
        ({"name": "ppo-critic"}, STEPS | {"credit": "later"}, r"reward\.credit"),
    ],
    ids=str,
)
def test_what_knows_no_steps_refuses_them(config_of, algorithm, reward, message):
    with pytest.raises(ValidationError, match=message):
        sums_config(config_of, reward=reward, **algorithm)
