"""What a training step reports, against direct forms."""

import pytest
import torch
from torch import nn

from lco.advantage_config import SparseAdvantage
from lco.algorithms import LcoKld, LcoLch, LcoMse
from lco.baselines import Gkd, Ppo
from lco.diagnostics import (
    entropy,
    gradient_bound,
    gradient_norm,
    mean_gradient_norm,
    projection_parameters,
    raw_spread,
    rollout_metrics,
    support_metrics,
    token_sums,
    total_variation,
)
from lco.losses import LOSSES
from lco.prompts import Prompt
from lco.rollout import Rollout
from lco.targets import optimal_log_probs, target_log_probs
from tests.lco.cases import V, gradient, on_support, randn, token_batch

SPARSE = SparseAdvantage(estimator="reward")


@pytest.fixture
def case(generator):
    old, advantages, now = (randn(generator, 30, V) for _ in range(3))
    actions = torch.randint(V, (30,), generator=generator)
    return old, advantages, now, actions, token_batch(old, advantages, actions)


def test_entropy_is_that_of_the_distribution_and_0_for_a_certain_token():
    uniform = torch.zeros(1, V).log_softmax(-1)
    assert entropy(uniform).item() == pytest.approx(torch.tensor(float(V)).log().item())
    certain = torch.full((1, V), -torch.inf)
    certain[0, 2] = 0.0
    assert entropy(certain).item() == 0.0


def test_gradient_norm_is_that_of_all_gradients_together():
    parameters = [
        torch.zeros(2, requires_grad=True),
        torch.zeros(1, requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert gradient_norm(parameters).item() == 5.0
    assert gradient_norm(parameters[2:]).item() == 0.0


def test_divergences_are_exact_over_the_whole_vocabulary(case):
    old, advantages, now, actions, batch = case
    sums = token_sums(now, batch, LcoKld(advantage=SPARSE, beta=0.5))
    probs, log_old, log_now = now.softmax(-1), old.log_softmax(-1), now.log_softmax(-1)
    torch.testing.assert_close(sums["kl_old"], (probs * (log_now - log_old)).sum())
    target = optimal_log_probs(old, advantages, 0.5)
    torch.testing.assert_close(sums["kl_target"], (target.exp() * (target - log_now)).sum())
    torch.testing.assert_close(sums["entropy"], -(probs * log_now).sum())
    torch.testing.assert_close(sums["action_prob"], probs.gather(1, actions[:, None]).sum())
    assert token_sums(old, batch, LcoMse(advantage=SPARSE, beta=0.5))["kl_old"].abs() < 1e-12


def test_the_sampled_estimate_of_the_divergence_is_unbiased(generator):
    old, now = randn(generator, V), randn(generator, V)
    actions = torch.multinomial(old.softmax(-1), 200_000, replacement=True, generator=generator)
    batch = token_batch(old.expand(len(actions), V), torch.zeros(len(actions), V, dtype=torch.float64), actions)
    batch.support = None
    estimate = token_sums(now.expand(len(actions), V), batch, Ppo())["kl_old_k3"] / len(actions)
    exact = (now.softmax(-1) * (now.log_softmax(-1) - old.log_softmax(-1))).sum()
    torch.testing.assert_close(estimate, exact, rtol=0.05, atol=0)


def test_clip_fraction_counts_the_tokens_whose_clip_decides(case):
    _, advantages, now, actions, batch = case
    ratio = (now.log_softmax(-1).gather(1, actions[:, None])[:, 0] - batch.behaviour_logprobs_N).exp()
    advantage = advantages.gather(1, actions[:, None])[:, 0]
    expected = sum(
        bool((a > 0 and r > 1.3) or (a < 0 and r < 0.8))
        for a, r in zip(advantage.tolist(), ratio.tolist(), strict=True)
    )
    assert token_sums(now, batch, Ppo(clip_low=0.2, clip_high=0.3))["clip_fraction"].item() == expected


def test_the_targets_spread_and_distance_are_those_of_its_distribution(case):
    old, advantages, now, _, batch = case
    sums = token_sums(now, batch, LcoKld(advantage=SPARSE, beta=0.5))
    target, probs = (old + advantages / 0.5).softmax(-1), now.softmax(-1)
    spread = -(target * target.log()).sum(-1)
    torch.testing.assert_close(sums["tv_target"], (target - probs).abs().sum() / 2)
    torch.testing.assert_close(sums["target_entropy"], spread.sum())
    torch.testing.assert_close(sums["target_support"], spread.exp().sum())
    torch.testing.assert_close(sums["kl_target_old"], (target * (target / old.softmax(-1)).log()).sum())


def test_total_variation_is_0_for_equal_and_1_for_disjoint_distributions():
    left, right = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log(), torch.tensor([[0.0, 0.0, 0.3, 0.7]]).log()
    torch.testing.assert_close(total_variation(left, right), torch.ones(1))
    assert total_variation(left, left).item() == 0.0


@pytest.mark.parametrize("outside", ["frozen-tail", "zero-mass"])
def test_divergence_of_target_and_behaviour_on_a_support_has_one_tail(case, generator, outside):
    old, advantages, now, actions, _ = case
    batch = on_support(old, advantages, actions, generator)
    config = LcoKld(advantage=SPARSE, beta=0.5, support={"name": "top-k", "k": 3, "source": "policy"}, outside=outside)
    inside = torch.zeros(30, V, dtype=torch.bool).scatter(1, batch.support.ids_NK, True)
    target, before = target_log_probs(now.log_softmax(-1), batch, config).exp(), old.softmax(-1)
    known = torch.where(inside, target * (target / before).log(), 0.0).sum()
    tail, tail_before = (p.masked_fill(inside, 0.0).sum(-1) for p in (target, before))
    expected = known + torch.where(tail > 0, tail * (tail / tail_before).log(), 0.0).sum()
    found = token_sums(now, batch, config)
    torch.testing.assert_close(found["kl_target_old"], expected)
    exact = torch.where(target > 0, target * (target / before).log(), 0.0).sum()
    assert found["kl_target_old"] <= exact + 1e-12


@pytest.mark.parametrize("k", [3, V])
def test_objectives_on_logits_report_distances_on_their_support(case, generator, k):
    old, advantages, now, actions, _ = case
    batch = on_support(old, advantages, actions, generator, k=k)
    config = LcoMse(advantage=SPARSE, beta=0.5, support={"name": "top-k", "k": k, "source": "policy"})
    found = token_sums(now, batch, config)
    kl = residual = 0.0
    for i in range(30):
        ids = batch.support.ids_NK[i][batch.support.valid_NK[i]]
        aim, fitted = (old + advantages / 0.5)[i, ids], now[i, ids]
        target = aim.softmax(-1)
        kl += (target * (target.log() - fitted.log_softmax(-1))).sum()
        residual += (fitted - aim).square().mean().sqrt()
    torch.testing.assert_close(found["kl_target"], kl)
    torch.testing.assert_close(found["residual"], residual)


def test_distillation_has_its_teacher_as_target(case):
    old, _, now, actions, _ = case
    teacher = old.flip(-1).log_softmax(-1)
    config = Gkd(advantage={"name": "logprob", "reward_model": "m"})
    sums = token_sums(now, token_batch(old, teacher, actions), config)
    torch.testing.assert_close(sums["kl_target"], (teacher.exp() * (teacher - now.log_softmax(-1))).sum())


def test_the_projections_of_known_models_are_found_and_no_other_matrix():
    names = [
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.o_proj",
        "h.0.attn.c_attn",
        "mlp.up_proj",
        "k_proj.lora_A.default",
    ]
    model = nn.Module()
    for position, name in enumerate(names):
        parts = name.split(".")
        here = model
        for part in parts[:-1]:
            if not hasattr(here, part):
                here.add_module(part, nn.Module())
            here = getattr(here, part)
        here.add_module(parts[-1], nn.Linear(position + 2, 1))
    found = {parameter.shape[1] - 2 for parameter in projection_parameters(model)}
    assert {names[i] for i in found} == {names[0], names[2], names[4]}


def test_the_papers_gradient_norm_is_the_mean_over_projections():
    parameters = [torch.zeros(2, 2, requires_grad=True) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.full((2, 2), 2.0), torch.full((2, 2), 1.0)
    assert mean_gradient_norm(parameters).item() == 3.0
    assert mean_gradient_norm(parameters[2:]).item() == 0.0


@pytest.mark.parametrize("reduction", ["sum", "mean", "half-sum"])
@pytest.mark.parametrize("config_type", [LcoKld, LcoMse, LcoLch])
def test_a_tokens_gradient_is_never_longer_than_its_loss_allows(case, config_type, reduction):
    old, advantages, now, _, batch = case
    now = old + advantages / 0.5 + now * torch.logspace(-3, 1, 30, dtype=torch.float64)[:, None]
    extra = {} if config_type is LcoKld else {"vocab_reduction": reduction, "support": {"name": "full"}}
    config = config_type(advantage=SPARSE, beta=0.5, **extra)
    loss = LOSSES[config_type]
    norm = gradient(lambda z: loss(z, batch, config), now).norm(dim=-1)
    bound = gradient_bound(loss(now, batch, config), config, torch.full((30,), V))
    assert (norm <= bound * (1 + 1e-9) + 1e-12).all()
    assert (norm / bound).max() > 0.6


def test_an_iterations_completions_are_counted_by_group():
    def rollout(reward, length, is_truncated=False):
        return Rollout(
            prompt=Prompt(id="p", text="p", reference=""),
            prompt_ids=[1],
            completion_ids=[3] * length,
            completion="",
            is_truncated=is_truncated,
            reward=reward,
            is_correct=reward > 0,
        )

    rollouts = [rollout(1.0, 2), rollout(1.0, 3), rollout(-1.0, 4, True), rollout(1.0, 5)]
    batch = token_batch(
        torch.zeros(4, V), torch.eye(4, V) * torch.tensor([1.0, -3.0, 0.0, 2.0])[:, None], torch.arange(4)
    )
    found = rollout_metrics(rollouts, batch, group_size=2)
    assert found == pytest.approx(
        {
            "train/reward": 0.5,
            "train/reward_std": 1.0,
            "train/accuracy": 0.75,
            "train/completion_tokens": 3.5,
            "train/completion_tokens_max": 5,
            "train/truncated": 0.25,
            "train/advantage_std": torch.tensor([1.0, -3.0, 0.0, 2.0]).std().item(),
            "train/advantage_max": 3.0,
            "train/zero_std_groups": 0.5,
        }
    )
    assert "train/zero_std_groups" not in rollout_metrics(rollouts, batch, group_size=1)


def test_a_supports_mass_and_gated_share_are_reported(case, generator):
    old, advantages, _, actions, _ = case
    batch = on_support(old, advantages, actions, generator)
    inside = torch.zeros(30, V, dtype=torch.bool).scatter(1, batch.support.ids_NK, True)
    config = LcoMse(advantage={"name": "logprob", "reward_model": "m"}, beta=0.5, center=True, gate_threshold=-0.1)
    batch.support.is_agreed_N[:6] = True
    found = support_metrics(batch.support, config)
    mass = old.softmax(-1).masked_fill(~inside, 0.0).sum(-1).mean()
    assert found["train/support_mass"] == pytest.approx(mass.item())
    assert found["train/gated"] == pytest.approx(0.2)
    assert found["train/advantage_max"] == batch.support.advantages_NK.abs().max().item()
    expected = torch.stack([advantages[i, batch.support.ids_NK[i][batch.support.valid_NK[i]]].std() for i in range(30)])
    assert raw_spread(batch.support) == pytest.approx(expected.mean().item())
