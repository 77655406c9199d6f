"""Generalised advantages, the critic's loss and its part in a run, against direct forms."""

import dataclasses
import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco.advantages import generalized_advantages
from lco.algorithms import TrainConfig
from lco.collection import collect
from lco.critic import value_loss
from lco.estimation import Estimator
from lco.policy import load_policy
from lco.prompts import load_prompts
from lco.stage import Stage, Stopped
from lco.train import _minibatch, train
from tests.lco.cases import randn
from tests.lco.launcher import metrics

COUNTS = torch.tensor([3, 1, 4, 2])
N = 10


@pytest.fixture
def sequences(generator):
    """Rewards and values of four sequences, and the values after their ends."""
    return randn(generator, N), randn(generator, N), randn(generator, 4)


@pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (0.97, 0.0), (0.9, 1.0)])
def test_generalised_advantages_are_the_discounted_sums_of_temporal_differences(sequences, discount, gae_lambda):
    rewards, values, last = sequences
    expected = []
    counts = COUNTS.tolist()
    for r, v, end in zip(rewards.split(counts), values.split(counts), last, strict=True):
        following = torch.cat([v[1:], end[None]])
        delta = r + discount * following - v
        expected += [
            sum((discount * gae_lambda) ** (i - t) * delta[i] for i in range(t, len(delta))) for t in range(len(delta))
        ]
    found = generalized_advantages(rewards, values, last, COUNTS, discount, gae_lambda)
    torch.testing.assert_close(found, torch.stack(expected))


def test_lambda_1_makes_the_returns_monte_carlo_whatever_the_values_are(sequences):
    rewards, values, _ = sequences
    found = values + generalized_advantages(rewards, values, torch.zeros(4), COUNTS, 0.9, 1.0)
    expected = [
        sum(0.9 ** (i - t) * part[i] for i in range(t, len(part)))
        for part in rewards.split(COUNTS.tolist())
        for t in range(len(part))
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_value_loss_is_the_larger_of_the_clipped_and_the_plain_square(generator):
    values, old, returns = (randn(generator, 50) for _ in range(3))
    clipped = torch.minimum(torch.maximum(values, old - 0.2), old + 0.2)
    expected = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) / 2
    torch.testing.assert_close(value_loss(values, old, returns, 0.2), expected)
    assert (expected > (values - returns) ** 2 / 2).any()
    torch.testing.assert_close(value_loss(values, old, returns, 0.0), (values - returns) ** 2 / 2)


def prepared(config):
    policy = load_policy(Path(config.policy), config)
    rollouts = collect(config, policy, load_prompts(config.prompts), 0)
    estimator = Estimator(config, policy)
    with torch.no_grad():
        estimator.critic.model.head.weight.normal_(generator=torch.Generator().manual_seed(3))
    return estimator, rollouts


def with_advantage(config, **changes):
    advantage = config.algorithm.advantage.model_copy(update=changes)
    algorithm = config.algorithm.model_copy(update={"advantage": advantage, "whiten": False})
    return config.model_copy(update={"algorithm": algorithm})


def test_the_reward_stands_at_the_last_token_and_a_truncated_completion_may_go_on(config_of):
    base = config_of("ppo-critic")
    rollouts = None
    for is_bootstrapped in (False, True):
        estimator, found = prepared(
            with_advantage(base, kl_weight=0.0, discount=0.9, bootstrap_truncated=is_bootstrapped)
        )
        rollouts = rollouts or found
        batch = estimator.batch(rollouts)
        lengths = batch.attention_mask_BT.sum(1)
        with torch.no_grad():
            values_BT = estimator.critic.model(batch.input_ids_BT, batch.attention_mask_BT)
        assert {rollout.is_truncated for rollout in rollouts} == {True, False}
        at = 0
        for row, rollout in enumerate(rollouts):
            count = len(rollout.completion_ids)
            end = values_BT[row, lengths[row] - 1] if is_bootstrapped and rollout.is_truncated else torch.tensor(0.0)
            value = values_BT[row, lengths[row] - 2]
            expected = rollout.reward + 0.9 * end - value
            torch.testing.assert_close(batch.advantages_N[at + count - 1], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(batch.values_N[at + count - 1], value, rtol=1e-4, atol=1e-5)
            at += count


def test_the_penalty_of_a_token_is_its_k1(config_of):
    config = with_advantage(config_of("ppo-critic"), bootstrap_truncated=False, critic_lambda=1.0, kl_weight=0.3)
    estimator, rollouts = prepared(config)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # away from the start, or the penalty is 0
        for parameter in estimator.policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    batch = estimator.batch(rollouts)
    penalty = -0.3 * (batch.behaviour_logprobs_N - batch.reference_logprobs_N)
    counts = batch.num_tokens_B.tolist()
    expected = torch.cat(
        [r.reward + part.flip(0).cumsum(0).flip(0) for r, part in zip(rollouts, penalty.split(counts), strict=True)]
    )
    assert penalty.abs().max() > 0.01
    torch.testing.assert_close(batch.returns_N, expected, rtol=1e-3, atol=1e-4)


def test_splitting_a_critics_step_into_micro_batches_changes_neither_loss_nor_gradient(config_of):
    found = []
    for size in (16, 5):
        config = config_of("ppo-critic", steps_per_epoch=1, micro_batch_size=size)
        estimator, rollouts = prepared(config)
        part = _minibatch(config, estimator.batch(rollouts), 0, 0)
        values = estimator.critic.fit(part, 0)
        found.append((values, [p.grad.clone() for p in estimator.critic.model.parameters()]))
    (whole, gradient), (split, other) = found
    assert split == pytest.approx(whole, rel=1e-4, abs=1e-6)
    scale = max(g.abs().max() for g in gradient)
    assert scale > 0 and all((a - b).abs().max() < 2e-5 * scale for a, b in zip(gradient, other, strict=True))


def test_pretraining_leaves_the_policy_as_it_is_and_fits_monte_carlo_returns(config_of, tmp_path):
    base = config_of("vc-ppo", iterations=4)
    advantage = base.algorithm.advantage.model_copy(update={"value_pretraining_iterations": 3, "critic_lambda": 0.0})
    config = base.model_copy(update={"algorithm": base.algorithm.model_copy(update={"advantage": advantage})})
    estimator, rollouts = prepared(config)
    pretraining, later = (estimator.batch(rollouts, iteration) for iteration in (2, 3))
    rewards = torch.tensor([rollout.reward for rollout in rollouts]).repeat_interleave(later.num_tokens_B)
    torch.testing.assert_close(pretraining.returns_N, rewards, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(later.returns_N, rewards, atol=1e-2)
    with closing(Stage(tmp_path / "run", [])) as stage:
        train(config, stage)
    steps = metrics(stage.run_dir)
    assert ["train/loss" in steps[step] for step in range(1, 9)] == [False] * 6 + [True] * 2
    assert all("train/value_loss" in values for values in steps.values())
    assert steps[7]["train/kl_old_k3"] == pytest.approx(0.0, abs=1e-6)


def test_a_critic_learns_which_prompts_are_rewarded(config_of, tmp_path):
    """Half of the prompts can be answered by no completion; the critic tells them apart from the first token on."""
    problems = tmp_path / "problems.jsonl"
    rows = [{"prompt": f"{n}+{n}=", "reference": "" if n % 2 else "8"} for n in range(1, 9)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = config_of("ppo-critic", prompts={"name": "jsonl", "path": str(problems)}, inner_epochs=25, iterations=1)
    config = with_advantage(base, value_clip=0.0)
    estimator, rollouts = prepared(config)
    rewarded = [  # what a verifier would say of an easy and of an impossible problem
        dataclasses.replace(rollout, reward=1.0 if rollout.prompt.reference else -1.0) for rollout in rollouts
    ]
    batch = estimator.batch(rewarded)
    explained = []
    for step in range(25):
        part = _minibatch(config.model_copy(update={"steps_per_epoch": 1}), batch, 0, step)
        explained.append(estimator.critic.fit(part, step)["train/explained_variance"])
    assert explained[-1] > 0.5 > explained[0]


def test_the_critic_resumes_with_the_policy(config_of, stage, resumed_stage):
    config: TrainConfig = config_of("vc-ppo", iterations=2)
    stage.stop()
    with pytest.raises(Stopped):
        train(config, stage)
    names = {path.name for path in (stage.run_dir / "checkpoints/step-000001").iterdir()}
    assert {"critic.safetensors", "critic-optimizer.safetensors", "buffer.safetensors"} <= names
    train(config, resumed_stage)
    assert sorted(metrics(resumed_stage.run_dir)) == [2, 3, 4]


def test_pretraining_must_leave_iterations_for_the_policy(config_of):
    with pytest.raises(ValueError, match="value_pretraining_iterations: must be fewer than the 1 iterations"):
        config_of("vc-ppo", iterations=1)
