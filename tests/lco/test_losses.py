"""The objectives (Eqs. 1, 3, 8-10), their gradients, curvature and bounds, in float64 with V = 7."""

import math
from typing import get_args

import pytest
import torch

from lco.advantage_config import SparseAdvantage
from lco.advantages import top_k_support
from lco.algorithms import Algorithm, LcoKld, LcoLch, LcoMse, TopKSupport
from lco.baselines import Grpo, Ppo, Reinforce
from lco.log_probs import action_log_probs, kl_divergence
from lco.losses import LOSSES, lco_kld, lco_lch, lco_mse, log_cosh, sft, token_weights
from lco.policy_gradients import ppo
from lco.targets import optimal_log_probs, optimal_logits, target_log_probs
from tests.lco.cases import V, gradient, randn, smallest_curvature, token_batch

N = 40
BETA = 0.7
SPARSE = SparseAdvantage(estimator="reward")
FULL = {"name": "full"}
KLD = LcoKld(advantage=SPARSE, beta=BETA)
MSE = LcoMse(advantage=SPARSE, beta=BETA, support=FULL)
LCH = LcoLch(advantage=SPARSE, beta=BETA, support=FULL)


@pytest.fixture
def case(generator):
    """Old logits, advantages, current logits, actions and the batch of all but the current logits."""
    old, advantages, now = randn(generator, N, V, scale=2), randn(generator, N, V), randn(generator, N, V, scale=2)
    actions = torch.randint(V, (N,), generator=generator)
    return old, advantages, now, actions, token_batch(old, advantages, actions)


def on_support(old, advantages, actions, generator, k=3):
    ids, valid = top_k_support([old], k, actions)
    return token_batch(
        old, advantages, actions, ids_NK=ids, valid_NK=valid, tail_advantages_N=randn(generator, len(actions))
    )


def fisher(logits_NV):
    probs = logits_NV.softmax(-1)
    return torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]


def hessians(loss, batch_of, logits_NV, config):
    return torch.stack(
        [
            torch.autograd.functional.hessian(lambda z, i=i: loss(z[None], batch_of(i), config).sum(), logits_NV[i])
            for i in range(len(logits_NV))
        ]
    )


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


def test_hessians_are_those_of_the_paper(case):
    old, advantages, now, actions, _ = case
    old, advantages, now, actions = old[:6], advantages[:6], now[:6], actions[:6]

    def batch_of(i):
        return token_batch(old[i : i + 1], advantages[i : i + 1], actions[i : i + 1])

    residual = now - optimal_logits(old, advantages, BETA)
    eye = torch.eye(V, dtype=torch.float64).expand(6, V, V)
    torch.testing.assert_close(hessians(lco_mse, batch_of, now, MSE), 2 * eye)
    torch.testing.assert_close(hessians(lco_lch, batch_of, now, LCH), torch.diag_embed(1 / residual.cosh() ** 2))
    torch.testing.assert_close(hessians(lco_kld, batch_of, now, KLD), fisher(now))


# --- Lemma 4.6: the LCO objectives are convex in the logits; Lemma 4.5: PPO is not


def lco_configs():
    found = []
    for config_type in (LcoKld, LcoMse, LcoLch):
        for support in (FULL, {"name": "top-k", "k": 3, "source": "policy"}):
            outsides = ("frozen-tail", "zero-mass") if config_type is LcoKld and support["name"] == "top-k" else (None,)
            for outside in outsides:
                extra = {} if outside is None else {"outside": outside}
                found.append(config_type(advantage=SPARSE, beta=BETA, support=support, **extra))
    return found


@pytest.mark.parametrize("config", lco_configs(), ids=lambda c: f"{c.name}-{c.support.name}-{getattr(c, 'outside', '')}")
def test_lco_losses_are_convex_in_logits_along_random_segments(case, generator, config):
    old, advantages, _, actions, full_batch = case
    batch = full_batch if config.support.name == "full" else on_support(old, advantages, actions, generator)
    loss = LOSSES[type(config)]
    now = randn(generator, N, V, scale=2)
    if isinstance(config, LcoKld):  # the tail's split is frozen at the current policy: one constant target a step
        target = target_log_probs(now.log_softmax(-1), batch, config)

        def value(z):
            return kl_divergence(target, z.log_softmax(-1))

    else:

        def value(z):
            return loss(z, batch, config)

    for _ in range(50):
        a, b = randn(generator, N, V, scale=4), randn(generator, N, V, scale=4)
        weight = torch.rand(N, 1, generator=generator, dtype=torch.float64)
        chord = weight[:, 0] * value(a) + (1 - weight[:, 0]) * value(b)
        assert (value(weight * a + (1 - weight) * b) <= chord + 1e-9).all()


def test_lch_curvature_is_bounded_below_on_bounded_residuals(generator):
    bound = 1.5
    residual = (2 * torch.rand(200, generator=generator, dtype=torch.float64) - 1) * bound
    variable = residual.clone().requires_grad_(True)
    (first,) = torch.autograd.grad(log_cosh(variable).sum(), variable, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), variable)
    assert second.min() >= 1 / math.cosh(bound) ** 2 - 1e-12


def active_ppo(action, advantage):
    """PPO's surrogate for one token whose ratio is 1 where it stands, so that no clip is near."""

    def value(logits_NV):
        old = logits_NV.detach()
        advantages = torch.zeros(1, logits_NV.shape[1], dtype=torch.float64)
        advantages[0, action] = advantage
        batch = token_batch(old, advantages, torch.tensor([action]))
        return ppo(logits_NV, batch, Ppo())

    return value


@pytest.mark.parametrize(("advantage", "eigenvalue"), [(1.0, -0.53), (-1.0, -0.30)])
def test_lemma_4_5_ppo_has_a_counterexample_to_convexity(advantage, eigenvalue):
    logits = torch.tensor([0.0, 0.3, -0.4, 0.1], dtype=torch.float64)
    assert smallest_curvature(active_ppo(0, advantage), logits) == pytest.approx(eigenvalue, abs=0.01)


def test_lemma_4_5_ppo_is_convex_exactly_where_a_positive_token_has_half_the_mass(generator):
    num_convex = 0
    for _ in range(150):
        logits = randn(generator, V, scale=3)
        action = int(torch.randint(V, (), generator=generator))
        is_convex = smallest_curvature(active_ppo(action, 1.0), logits) >= -1e-10
        assert is_convex == bool(logits.softmax(-1)[action] >= 0.5)
        assert smallest_curvature(active_ppo(action, -1.0), logits) < 0
        num_convex += is_convex
    assert num_convex > 5, "the draws must reach the convex region"


def test_bounds_16_to_18_hold_for_random_jacobians(case, generator):
    old, advantages, now, _, batch = case
    now = old + advantages / BETA + randn(generator, N, V) * torch.logspace(-3, 1, N, dtype=torch.float64)[:, None]
    jacobian = randn(generator, N, V, 5)
    sigma = torch.linalg.matrix_norm(jacobian, 2)
    bounds = {
        MSE: lambda loss: 2 * sigma * loss.sqrt(),
        LCH: lambda loss: sigma * (V * -torch.expm1(-2 * loss / V)).sqrt(),
        KLD: lambda loss: sigma * (2 * loss.clamp(min=0)).sqrt(),
    }
    for config, bound in bounds.items():
        loss = LOSSES[type(config)]
        slope = gradient(lambda z, loss=loss, config=config: loss(z, batch, config), now)
        norm = torch.einsum("nvp,nv->np", jacobian, slope).norm(dim=-1)
        assert (norm <= bound(loss(now, batch, config)) * (1 + 1e-9) + 1e-12).all(), config.name


def test_proposition_4_8_gradient_descent_on_mse_converges_linearly(generator):
    jacobian = randn(generator, V, V)
    gram = jacobian @ jacobian.T
    rate = 0.4 / torch.linalg.matrix_norm(gram, 2)
    contraction = torch.linalg.eigvalsh(torch.eye(V, dtype=torch.float64) - 2 * rate * gram).abs().max()
    old, advantages = randn(generator, 1, V), randn(generator, 1, V)
    batch = token_batch(old, advantages, torch.tensor([0]))
    theta, start = torch.zeros(V, dtype=torch.float64), lco_mse(old, batch, MSE)
    for k in range(1, 60):
        slope = gradient(lambda z: lco_mse(z, batch, MSE), old + jacobian @ theta)[0]
        theta = theta - rate * jacobian.T @ slope
        assert lco_mse(old + jacobian @ theta, batch, MSE) <= contraction ** (2 * k) * start * (1 + 1e-9)


@pytest.mark.parametrize("config", [KLD, MSE], ids=lambda c: c.name)
def test_a_tabular_policy_converges_to_the_optimal_policy(case, config):
    old, advantages, now, _, batch = case
    loss = LOSSES[type(config)]
    logits = old.clone()
    for _ in range(3000 if config is KLD else 60):
        logits = logits - (2.0 if config is KLD else 0.2) * gradient(lambda z: loss(z, batch, config), logits)
    assert kl_divergence(optimal_log_probs(old, advantages, BETA), logits.log_softmax(-1)).max() < 1e-4


# --- invariances


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


def test_frozen_tail_has_the_gradient_of_one_bucket_and_none_of_its_concavity(case, generator):
    old, advantages, now, actions, _ = case
    batch = on_support(old, advantages, actions, generator)
    config = LcoKld(advantage=SPARSE, beta=BETA, support=TopKSupport(k=3, source="policy"))
    ids, valid = batch.support.ids_NK, batch.support.valid_NK
    target = target_log_probs(now.log_softmax(-1), batch, config)
    inside = torch.zeros(N, V, dtype=torch.bool).scatter(1, ids, True)
    target_tail = target.exp().masked_fill(inside, 0.0).sum(-1)

    def one_bucket(z, rows=slice(None)):
        log_probs = z.log_softmax(-1)
        known = (target[rows].exp().masked_fill(~inside[rows], 0.0) * log_probs).sum(-1)
        return -known - target_tail[rows] * log_probs.masked_fill(inside[rows], -torch.inf).logsumexp(-1)

    torch.testing.assert_close(gradient(one_bucket, now), gradient(lambda z: lco_kld(z, batch, config), now))
    assert valid.any()
    bucket = [smallest_curvature(lambda z, i=i: one_bucket(z, slice(i, i + 1)), now[i]) for i in range(10)]
    assert min(bucket) < -1e-3
    frozen = [
        smallest_curvature(lambda z, i=i: kl_divergence(target[i : i + 1], z.log_softmax(-1)), now[i]) for i in range(10)
    ]
    assert min(frozen) > -1e-12


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
