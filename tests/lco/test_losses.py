"""The objectives (Eqs. 1, 3, 8-10), their gradients and invariances, in float64 with V = 7."""

import math
from typing import get_args

import pytest
import torch

from lco.algorithms import Algorithm, LcoKld, LcoLch, LcoMse, TopKSupport
from lco.baselines import Grpo, Ppo, Reinforce
from lco.log_probs import action_log_probs, kl_divergence
from lco.losses import (
    LOSSES,
    kl_to_target,
    lco_kld,
    lco_lch,
    lco_mse,
    log_cosh,
    log_cosh_to_target,
    mse_to_target,
    sft,
    token_weights,
)
from lco.policy_gradients import ppo
from lco.targets import optimal_log_probs, optimal_logits, target_log_probs
from tests.lco.cases import BETA, FULL, KLD, LCH, MSE, SPARSE, N, V, gradient, on_support, randn, token_batch


def test_every_algorithm_has_one_loss_and_every_loss_an_algorithm():
    union = get_args(get_args(Algorithm)[0])
    assert set(LOSSES) == set(union)
    assert len({config.model_fields["name"].default for config in union}) == len(union)


def test_eq1_sft_is_the_negative_log_probability_of_the_demonstrated_token(case):
    _, _, now, actions, _ = case
    expected = torch.stack([-now[i].softmax(-1)[actions[i]].log() for i in range(N)])
    torch.testing.assert_close(sft(now, actions), expected)


def test_eq3_ppo_is_the_clipped_surrogate(case):
    old, advantages, now, actions, batch = case
    config = Ppo(clip_low=0.2, clip_high=0.3)
    for i in range(N):
        ratio = now[i].softmax(-1)[actions[i]] / old[i].softmax(-1)[actions[i]]
        advantage = advantages[i, actions[i]]
        expected = -min(ratio * advantage, ratio.clamp(0.8, 1.3) * advantage)
        torch.testing.assert_close(ppo(now, batch, config)[i], expected)


def test_eq8_mse_sums_squared_residuals_over_the_vocabulary(case):
    old, advantages, now, _, batch = case
    torch.testing.assert_close(lco_mse(now, batch, MSE), ((now - (old + advantages / BETA)) ** 2).sum(-1))


def test_eq9_lch_sums_log_cosh_residuals_over_the_vocabulary(case):
    old, advantages, now, _, batch = case
    residual = now - (old + advantages / BETA)
    torch.testing.assert_close(lco_lch(now, batch, LCH), torch.log(torch.cosh(residual)).sum(-1))


def test_eq10_kld_is_the_forward_divergence_from_the_optimal_policy(case):
    old, advantages, now, _, batch = case
    target = (old + advantages / BETA).softmax(-1)
    expected = (target * (target.log() - now.softmax(-1).log())).sum(-1)
    torch.testing.assert_close(lco_kld(now, batch, KLD), expected)


@pytest.mark.parametrize(
    ("function", "loss", "config"),
    [(kl_to_target, lco_kld, KLD), (mse_to_target, lco_mse, MSE), (log_cosh_to_target, lco_lch, LCH)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_public_losses_are_those_of_the_loop_for_any_leading_shape(case, function, loss, config):
    old, advantages, now, _, batch = case
    target = optimal_logits(old, advantages, BETA)
    expected = loss(now, batch, config)
    torch.testing.assert_close(function(now, target), expected)
    torch.testing.assert_close(function(now.view(2, 5, 4, V), target.view(2, 5, 4, V)), expected.view(2, 5, 4))
    torch.testing.assert_close(function(now[0], target[0]), expected[0])


@pytest.mark.parametrize("function", [kl_to_target, mse_to_target, log_cosh_to_target])
def test_public_losses_hold_the_target_constant_and_are_taken_in_float32(case, function):
    old, advantages, now, _, _ = case
    target = optimal_logits(old, advantages, BETA).requires_grad_(True)
    logits = now.clone().requires_grad_(True)
    function(logits, target).sum().backward()
    assert target.grad is None and logits.grad is not None
    narrow = function(now.bfloat16(), target.detach().bfloat16())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, function(now.bfloat16().double(), target.detach().bfloat16().double()).float())


def test_a_target_without_mass_somewhere_has_a_finite_divergence_and_gradient(generator):
    target = randn(generator, 5, V)
    target[:, 3] = -torch.inf
    now = randn(generator, 5, V)
    assert torch.isfinite(kl_to_target(now, target)).all()
    torch.testing.assert_close(gradient(lambda z: kl_to_target(z, target), now), now.softmax(-1) - target.softmax(-1))


def test_reinforce_is_the_advantage_times_the_log_probability(case):
    _, advantages, now, actions, batch = case
    expected = torch.stack([-advantages[i, actions[i]] * now[i].log_softmax(-1)[actions[i]] for i in range(N)])
    torch.testing.assert_close(LOSSES[Reinforce](now, batch, Reinforce(advantage=SPARSE)), expected)


def test_grpo_adds_the_k3_estimate_to_the_surrogate(case, generator):
    old, advantages, now, actions, _ = case
    initial = randn(generator, N, V)
    batch = token_batch(old, advantages, actions, reference_logits_NV=initial)
    plain = LOSSES[Grpo](now, batch, Grpo())
    torch.testing.assert_close(plain, ppo(now, batch, Ppo()))
    ratio = (action_log_probs(initial, actions) - action_log_probs(now, actions)).exp()
    penalised = LOSSES[Grpo](now, batch, Grpo(kl_weight=0.04))
    torch.testing.assert_close(penalised - plain, 0.04 * (ratio - ratio.log() - 1))
    assert (penalised >= plain).all()


def test_log_cosh_is_exact_near_zero_and_finite_far_away():
    values = torch.tensor([0.0, 1e-4, 0.5, -3.0, 400.0, -1e5], dtype=torch.float64)
    exact = [0.0, 0.5e-8, math.log(math.cosh(0.5)), math.log(math.cosh(3.0)), 400 - math.log(2), 1e5 - math.log(2)]
    torch.testing.assert_close(log_cosh(values), torch.tensor(exact, dtype=torch.float64), rtol=1e-7, atol=1e-15)
    assert torch.isfinite(log_cosh(torch.tensor([1e30, -3e38]))).all()


def test_kl_divergence_counts_an_entry_without_mass_as_nothing():
    p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    q = torch.tensor([[0.25, 0.25, 0.5]]).log()
    torch.testing.assert_close(kl_divergence(p, q), torch.tensor([math.log(2)]))
    variable = torch.zeros(1, 3, requires_grad=True)
    kl_divergence(p, variable.log_softmax(-1)).sum().backward()
    torch.testing.assert_close(variable.grad, torch.tensor([[1 / 3 - 0.5, 1 / 3 - 0.5, 1 / 3]]))


def test_eq4_sft_gradient_is_the_policy_less_the_demonstrated_token(case):
    _, _, now, actions, _ = case
    one_hot = torch.nn.functional.one_hot(actions, V)
    torch.testing.assert_close(gradient(lambda z: sft(z, actions), now), now.softmax(-1) - one_hot)


def test_eq5_ppo_gradient_in_its_active_region_and_zero_elsewhere(case):
    old, advantages, now, actions, batch = case
    now = old + 0.3 * now  # ratios on both sides of the clip
    config = Ppo()
    ratio = (action_log_probs(now, actions) - action_log_probs(old, actions)).exp()[:, None]
    advantage = advantages.gather(1, actions[:, None])
    is_active = ((advantage > 0) & (ratio < 1.2)) | ((advantage < 0) & (ratio > 0.8))
    one_hot = torch.nn.functional.one_hot(actions, V)
    expected = torch.where(is_active, -advantage * ratio * (one_hot - now.softmax(-1)), 0.0)
    assert 0 < is_active.sum() < N
    torch.testing.assert_close(gradient(lambda z: ppo(z, batch, config), now), expected)


def test_mse_gradient_is_twice_the_residual(case):
    old, advantages, now, _, batch = case
    residual = now - optimal_logits(old, advantages, BETA)
    torch.testing.assert_close(gradient(lambda z: lco_mse(z, batch, MSE), now), 2 * residual)


def test_lch_gradient_is_the_hyperbolic_tangent_of_the_residual(case):
    old, advantages, now, _, batch = case
    residual = now - optimal_logits(old, advantages, BETA)
    torch.testing.assert_close(gradient(lambda z: lco_lch(z, batch, LCH), now), residual.tanh())


def test_kld_gradient_is_the_policy_less_the_optimal_policy(case):
    old, advantages, now, _, batch = case
    expected = now.softmax(-1) - optimal_log_probs(old, advantages, BETA).exp()
    found = gradient(lambda z: lco_kld(z, batch, KLD), now)
    torch.testing.assert_close(found, expected)
    assert found.norm(dim=-1).max() <= math.sqrt(2)


@pytest.mark.parametrize("outside", ["frozen-tail", "zero-mass"])
def test_kld_gradient_on_a_support_is_the_policy_less_its_target(case, generator, outside):
    old, advantages, now, actions, _ = case
    batch = on_support(old, advantages, actions, generator)
    config = LcoKld(advantage=SPARSE, beta=BETA, support=TopKSupport(k=3, source="policy"), outside=outside)
    expected = now.softmax(-1) - target_log_probs(now.log_softmax(-1), batch, config).exp()
    torch.testing.assert_close(gradient(lambda z: lco_kld(z, batch, config), now), expected)


@pytest.mark.parametrize("config_type", [LcoMse, LcoLch])
def test_logit_gradients_on_a_support_are_those_of_its_entries_alone(case, generator, config_type):
    old, advantages, now, actions, full_batch = case
    batch = on_support(old, advantages, actions, generator)
    loss = LOSSES[config_type]
    some = config_type(advantage=SPARSE, beta=BETA, support=TopKSupport(k=3, source="policy"))
    everything = config_type(advantage=SPARSE, beta=BETA, support=FULL)
    inside = torch.zeros(N, V, dtype=torch.bool).scatter(1, batch.support.ids_NK, True)
    expected = gradient(lambda z: loss(z, full_batch, everything), now).masked_fill(~inside, 0.0)
    torch.testing.assert_close(gradient(lambda z: loss(z, batch, some), now), expected)


@pytest.mark.parametrize("config", [KLD, MSE, LCH], ids=lambda c: c.name)
def test_loss_and_gradient_vanish_at_the_target(case, config):
    old, advantages, _, _, batch = case
    target = optimal_logits(old, advantages, BETA)
    loss = LOSSES[type(config)]
    torch.testing.assert_close(loss(target, batch, config), torch.zeros(N, dtype=torch.float64), atol=1e-12, rtol=0)
    found = gradient(lambda z: loss(z, batch, config), target)
    torch.testing.assert_close(found, torch.zeros(N, V, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("outside", ["frozen-tail", "zero-mass"])
def test_kld_gradient_on_a_support_vanishes_at_its_target(case, generator, outside):
    old, advantages, now, actions, _ = case
    batch = on_support(old, advantages, actions, generator)
    config = LcoKld(advantage=SPARSE, beta=BETA, support=TopKSupport(k=3, source="policy"), outside=outside)
    target = target_log_probs(now.log_softmax(-1), batch, config).clamp(min=-60)
    found = gradient(lambda z: lco_kld(z, batch, config), target)
    torch.testing.assert_close(found, torch.zeros(N, V, dtype=torch.float64), atol=1e-12, rtol=0)


def test_kld_is_blind_to_a_constant_added_to_a_tokens_advantages(case, generator):
    old, advantages, now, actions, batch = case
    shifted = token_batch(old, advantages + randn(generator, N, 1), actions)
    torch.testing.assert_close(lco_kld(now, shifted, KLD), lco_kld(now, batch, KLD))
    torch.testing.assert_close(lco_kld(now + randn(generator, N, 1), batch, KLD), lco_kld(now, batch, KLD))


@pytest.mark.parametrize("config", [MSE, LCH], ids=lambda c: c.name)
def test_objectives_on_logits_see_a_constant_added_to_a_tokens_advantages(case, config):
    old, advantages, now, actions, batch = case
    shifted = token_batch(old, advantages + 1.7, actions)
    loss = LOSSES[type(config)]
    assert (loss(now, shifted, config) - loss(now, batch, config)).abs().min() > 1e-3


@pytest.mark.parametrize("config_type", [LcoKld, LcoMse, LcoLch])
def test_a_support_of_every_entry_equals_the_full_vocabulary(case, generator, config_type):
    old, advantages, now, actions, batch = case
    every = on_support(old, advantages, actions, generator, k=V)
    loss = LOSSES[config_type]
    full = config_type(advantage=SPARSE, beta=BETA, support=FULL)
    top = config_type(advantage=SPARSE, beta=BETA, support=TopKSupport(k=V, source="policy"))
    torch.testing.assert_close(loss(now, every, top), loss(now, batch, full))
    torch.testing.assert_close(
        gradient(lambda z: loss(z, every, top), now), gradient(lambda z: loss(z, batch, full), now)
    )


def test_current_anchor_keeps_the_loss_constant_and_steps_along_the_advantage(case, generator):
    old, advantages, now, _, batch = case
    steps = {LcoMse: -2 * advantages / BETA, LcoLch: -(advantages / BETA).tanh()}
    for config_type, expected in steps.items():
        config = config_type(advantage=SPARSE, beta=BETA, support=FULL, anchor="current")
        loss = LOSSES[config_type]
        torch.testing.assert_close(loss(now, batch, config), loss(old + randn(generator, N, V), batch, config))
        torch.testing.assert_close(gradient(lambda z, loss=loss, c=config: loss(z, batch, c), now), expected)


def test_both_anchors_agree_at_the_behaviour_policy(case):
    old, _, _, _, batch = case
    for config in (KLD, MSE, LCH):
        loss = LOSSES[type(config)]
        current = config.model_copy(update={"anchor": "current"})
        torch.testing.assert_close(loss(old, batch, config), loss(old, batch, current))
        torch.testing.assert_close(
            gradient(lambda z, loss=loss, c=config: loss(z, batch, c), old),
            gradient(lambda z, loss=loss, c=current: loss(z, batch, c), old),
        )


def test_the_first_step_at_large_beta_is_the_all_action_policy_gradient(case):
    old, advantages, _, actions, _ = case
    beta = 1e5
    batch = token_batch(old, advantages, actions)
    probs = old.softmax(-1)
    policy_gradient = probs * (advantages - (probs * advantages).sum(-1, keepdim=True))
    config = LcoKld(advantage=SPARSE, beta=beta)
    found = -beta * gradient(lambda z: lco_kld(z, batch, config), old)
    torch.testing.assert_close(found, policy_gradient, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config_type", [LcoMse, LcoLch])
def test_vocabulary_reductions_are_the_sum_over_one_over_the_support_and_over_two(case, generator, config_type):
    old, advantages, now, actions, full_batch = case
    loss = LOSSES[config_type]
    top = TopKSupport(k=3, source="policy")
    for support, batch in ((FULL, full_batch), (top, on_support(old, advantages, actions, generator))):
        total, mean, half = (
            loss(now, batch, config_type(advantage=SPARSE, beta=BETA, support=support, vocab_reduction=name))
            for name in ("sum", "mean", "half-sum")
        )
        size = torch.full((N,), V) if batch.support.valid_NK is None else batch.support.valid_NK.sum(-1)
        torch.testing.assert_close(mean, total / size)
        torch.testing.assert_close(half, total / 2)


def test_token_mean_weighs_every_token_alike_and_sequence_mean_every_sequence():
    counts = torch.tensor([1, 3, 2])
    torch.testing.assert_close(token_weights(counts, "token-mean"), torch.full((6,), 1 / 6))
    expected = torch.tensor([1, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2]) / 3
    torch.testing.assert_close(token_weights(counts, "sequence-mean"), expected)
    for reduction in ("token-mean", "sequence-mean"):
        torch.testing.assert_close(token_weights(counts, reduction).sum(), torch.tensor(1.0))


def test_micro_mean_weighs_every_micro_batch_alike_and_depends_on_their_size():
    counts = torch.tensor([1, 3, 2, 4, 2])
    found = token_weights(counts, "micro-mean", 2)
    expected = torch.cat([torch.full((4,), 1 / 4), torch.full((6,), 1 / 6), torch.full((2,), 1 / 2)]) / 3
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(token_weights(counts, "micro-mean", 1), token_weights(counts, "sequence-mean"))
    torch.testing.assert_close(token_weights(counts, "micro-mean", 5), token_weights(counts, "token-mean"))


def test_a_mean_of_means_overweighs_a_short_micro_batch(generator):
    """Check NUM5: 50 and 5 tokens, the few with the larger losses."""
    losses = torch.cat([randn(generator, 50).abs(), randn(generator, 5).abs() + 3])
    counts = torch.tensor([50, 5])
    token_mean, micro_mean = ((token_weights(counts, name, 1) * losses).sum() for name in ("token-mean", "micro-mean"))
    torch.testing.assert_close(token_mean, losses.mean())
    torch.testing.assert_close(micro_mean, (losses[:50].mean() + losses[50:].mean()) / 2)
    assert micro_mean > 1.8 * token_mean
