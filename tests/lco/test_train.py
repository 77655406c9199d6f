"""The loop: what a step does, what a run reports, and that a run is a function of its configuration and seed."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lco.algorithms import Algorithm, LcoLogitConfig
from lco.baselines import DistillationConfig
from lco.collection import collect, prompt_indices
from lco.config import Optimizer, StageConfig
from lco.diagnostics import rollout_metrics
from lco.estimation import Estimator
from lco.losses import LOSSES
from lco.manifest import read_manifest
from lco.memory import Limits
from lco.metrics import METRICS
from lco.optimization import Fitting
from lco.policy import load_policy
from lco.policy_gradients import RatioConfig
from lco.prompts import load_prompts
from lco.train import _minibatch, fit, train
from tests.lco.launcher import metrics, records
from tests.lco.union import ALGORITHMS


def test_every_algorithm_of_the_union_is_tried_here():
    names = {model.model_fields["name"].default for model in Algorithm.__args__[0].__args__}
    assert names == {algorithm["name"] for algorithm in ALGORITHMS.values()}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_splitting_a_step_into_micro_batches_changes_neither_loss_nor_gradient(config_of, name):
    config = config_of(name)
    policy = load_policy(Path(config.policy), config)
    estimator = Estimator(config, policy)
    batch = estimator.batch(collect(config, policy, load_prompts(config.prompts), 0))
    assert batch.advantages_N.any()
    part = _minibatch(config.model_copy(update={"steps_per_epoch": 1}), batch, 0, 0)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # away from the behaviour policy, where ratios and residuals are not trivial
        for parameter in policy.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    weights = [parameter.detach().clone() for parameter in policy.model.parameters()]

    def step(some, limits):
        fitting = Fitting(policy.model, Optimizer(learning_rate=1e-30, max_grad_norm=0.0), 1)
        found = fit(policy, fitting, estimator.algorithm, some, limits, 0)
        return found, [parameter.grad.clone() for parameter in policy.model.parameters()]

    whole, gradient = step(part, Limits(len(part.num_tokens_B)))
    scale = max(g.abs().max() for g in gradient)
    assert scale > 0

    @settings(max_examples=6, deadline=None, derandomize=True, database=None)
    @given(st.integers(1, 16), st.just(0) | st.integers(1, 160), st.permutations(range(16)))
    def check(max_sequences, max_tokens, order):
        found, other = step(part.select(torch.tensor(order)), Limits(max_sequences, max_tokens))
        for key, value in whole.items():
            assert found[key] == pytest.approx(value, rel=2e-4, abs=1e-6), key
        assert all((a - b).abs().max() <= 2e-5 * scale for a, b in zip(gradient, other, strict=True))

    check()
    assert all(torch.equal(a, b) for a, b in zip(weights, policy.model.parameters(), strict=True))


def test_micro_mean_is_the_mean_of_the_micro_batches_token_means(config_of):
    algorithm = {"name": "lco-kld", "beta": 0.5, "advantage": {"name": "sparse"}, "token_reduction": "micro-mean"}
    config = config_of("lco-kld-sparse", algorithm=algorithm, steps_per_epoch=1, micro_batch_size=3)
    policy = load_policy(Path(config.policy), config)
    estimator = Estimator(config, policy)
    batch = estimator.batch(collect(config, policy, load_prompts(config.prompts), 0))
    part = _minibatch(config, batch, 0, 0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.02
    means = []
    for start in range(0, 16, 3):
        micro = part.select(torch.arange(start, min(start + 3, 16)))
        logits = policy.token_logits(micro.input_ids_BT, micro.attention_mask_BT, micro.mask_BT)
        means.append(LOSSES[type(config.algorithm)](logits, micro, config.algorithm).mean())
    expected = torch.stack(means).mean()
    fitting = Fitting(policy.model, Optimizer(learning_rate=1e-30, max_grad_norm=0.0), 1)
    parameters = list(policy.model.parameters())
    slopes = torch.autograd.grad(expected, parameters)
    found = fit(policy, fitting, estimator.algorithm, part, Limits(3), 0)
    assert found["train/loss"] == pytest.approx(expected.item(), rel=1e-4)
    for parameter, slope in zip(parameters, slopes, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_trains_and_reports(config_of, name, stage):
    config = config_of(name, iterations=2)
    train(config, stage)
    found = metrics(stage.run_dir)
    assert sorted(found) == [1, 2, 3, 4]
    common = {"loss", "grad_norm", "grad_norm_qkv", "learning_rate", "entropy", "action_prob", "num_tokens"}
    of_iteration = {"reward", "reward_std", "accuracy", "completion_tokens", "truncated", "advantage_std"}
    of_target = {"kl_target", "tv_target", "target_entropy", "target_support"}
    of_critic = {"value_loss", "critic_grad_norm", "critic_learning_rate", "value_clip_fraction"}
    has_critic = config.algorithm.advantage.name == "gae"
    is_lco, is_on_logits = name.startswith("lco"), isinstance(config.algorithm, LcoLogitConfig)
    for step, values in found.items():
        names = {key.removeprefix("train/") for key in values}
        assert values.keys() <= METRICS.keys()
        assert all(value is not None for value in values.values())
        assert (of_critic <= names) == has_critic
        if name == "vc-ppo" and step <= 2:
            assert not common & names, "the critic is fitted alone"
            continue
        assert common <= names
        assert (of_iteration <= names) == (step % 2 == 1)
        assert (of_target <= names) == (is_lco or isinstance(config.algorithm, DistillationConfig))
        assert ("kl_target_old" in names) == is_lco and ("residual" in names) == is_on_logits
        assert ("clip_fraction" in names) == isinstance(config.algorithm, RatioConfig)
    manifest = read_manifest(stage.run_dir)
    assert (manifest.step, manifest.outputs) == (4, {"model": "model"})
    trained, start = (load_policy(path, config) for path in (stage.run_dir / "model", Path(config.policy)))
    assert any(not torch.equal(a, b) for a, b in zip(trained.model.parameters(), start.model.parameters(), strict=True))


def test_the_first_step_of_an_iteration_stands_at_the_behaviour_policy(config_of, stage):
    train(config_of("lco-kld", iterations=2), stage)
    found = metrics(stage.run_dir)
    assert all(abs(found[step]["train/kl_old"]) < 1e-6 for step in (1, 3))
    assert all(found[step]["train/kl_old"] > 1e-6 for step in (2, 4))


def test_repeated_fitting_of_one_iteration_approaches_the_target(config_of, stage):
    config = config_of("lco-kld", iterations=1, inner_epochs=30, steps_per_epoch=1, optimizer={"learning_rate": 0.01})
    train(config, stage)
    found = metrics(stage.run_dir)
    assert found[30]["train/kl_target"] < 0.1 * found[1]["train/kl_target"]


def test_validation_is_measured_at_its_steps_and_at_the_last(config_of, stage):
    validation = {
        "prompts": {"name": "sums", "split": "validation", "num_problems": 8},
        "extraction": "last-equals",
        "max_tokens": 8,
        "every_steps": 4,
    }
    train(config_of("ppo", validation=validation), stage)
    assert [step for step, values in metrics(stage.run_dir).items() if "eval/accuracy" in values] == [4, 6]


def test_the_same_configuration_and_seed_give_the_same_numbers_and_another_seed_others(config_of, tmp_path):
    from contextlib import closing

    from lco.stage import Stage

    runs = []
    for number, seed in enumerate((0, 0, 1)):
        with closing(Stage(tmp_path / str(number), [])) as stage:
            train(config_of("lco-kld", seed=seed, iterations=2), stage)
        runs.append((metrics(stage.run_dir), (stage.run_dir / "model/model.safetensors").read_bytes()))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0] and runs[0][1] != runs[2][1]


def test_every_prompt_comes_once_before_any_comes_again():
    positions = list(itertools.chain(*(prompt_indices(10, 4, iteration, 3) for iteration in range(5))))
    assert sorted(positions[:10]) == sorted(positions[10:]) == list(range(10))
    assert positions[:10] != positions[10:]
    assert prompt_indices(10, 4, 2, 3) == positions[8:12]
    assert prompt_indices(3, 7, 0, 0)[:3] != sorted(prompt_indices(3, 7, 0, 0))[:3]


def test_an_epoch_takes_every_completion_once(config_of):
    config = config_of("ppo", steps_per_epoch=4, inner_epochs=2)
    policy = load_policy(Path(config.policy), StageConfig(device="cpu"))
    batch = Estimator(config, policy).batch(collect(config, policy, load_prompts(config.prompts), 0))
    rows = sorted(map(tuple, batch.input_ids_BT.tolist()))
    epochs = [[_minibatch(config, batch, 0, epoch * 4 + share) for share in range(4)] for epoch in range(2)]
    width = batch.input_ids_BT.shape[1]
    for parts in epochs:
        taken = [tuple(row + [0] * (width - len(row))) for part in parts for row in part.input_ids_BT.tolist()]
        assert sorted(taken) == rows
        assert all(part.weights_N.sum().item() == pytest.approx(1) for part in parts)
    first, second = ([part.actions_N.tolist() for part in parts] for parts in epochs)
    assert first != second


def test_a_group_is_several_completions_of_one_prompt_side_by_side(config_of):
    config = config_of("grpo")
    policy = load_policy(Path(config.policy), config)
    rollouts = collect(config, policy, load_prompts(config.prompts), 0)
    assert len(rollouts) == 16
    groups = [rollouts[start : start + 4] for start in range(0, 16, 4)]
    assert all(len({rollout.prompt.id for rollout in group}) == 1 for group in groups)
    assert len({group[0].prompt.id for group in groups}) == 4
    assert any(group[0].completion_ids != group[1].completion_ids for group in groups)
    assert {rollout.is_correct for rollout in rollouts} == {True, False}, "the case must hold both"
    for rollout in rollouts:
        assert rollout.completion == policy.decode(rollout.completion_ids)
        assert rollout.is_truncated == (rollout.completion_ids[-1] != policy.eos_id)
        assert rollout.reward == (1.0 if rollout.is_correct else -1.0)
    again = collect(config, policy, load_prompts(config.prompts), 0)
    assert [rollout.completion_ids for rollout in again] == [rollout.completion_ids for rollout in rollouts]
    batch = Estimator(config, policy).batch(rollouts)
    reported = rollout_metrics(rollouts, batch, 4)
    assert reported["train/truncated"] == sum(rollout.is_truncated for rollout in rollouts) / 16
    assert reported["train/completion_tokens"] == len(batch.actions_N) / 16


def test_a_run_with_a_receding_target_and_several_epochs_says_so(config_of, stage):
    algorithm = {"name": "lco-lch", "advantage": {"name": "sparse"}, "beta": 1.0, "anchor": "current"}
    train(config_of("grpo", algorithm=algorithm, iterations=1, inner_epochs=2), stage)
    events = [record for record in records(stage.run_dir) if record["type"] == "event"]
    assert [event["level"] for event in events] == ["warning"]
    assert "anchor" in events[0]["message"]
