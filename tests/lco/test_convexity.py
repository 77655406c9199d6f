"""Curvature of the objectives (Lemmas 4.5, 4.6), their gradient bounds and convergence, in float64 with V = 7."""

import math

import pytest
import torch

from lco.algorithms import LcoKld, LcoLch, LcoMse, TopKSupport
from lco.analysis.toy import hessians as toy_hessians
from lco.baselines import Ppo
from lco.log_probs import action_log_probs, kl_divergence
from lco.losses import LOSSES, lco_kld, lco_lch, lco_mse, log_cosh, sft
from lco.policy_gradients import ppo
from lco.targets import optimal_log_probs, optimal_logits, target_log_probs
from tests.lco.cases import (
    BETA,
    FULL,
    KLD,
    LCH,
    MSE,
    SPARSE,
    N,
    V,
    gradient,
    on_support,
    randn,
    smallest_curvature,
    token_batch,
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


def lco_configs():
    found = []
    for config_type in (LcoKld, LcoMse, LcoLch):
        for support in (FULL, {"name": "top-k", "k": 3, "source": "policy"}):
            outsides = ("frozen-tail", "zero-mass") if config_type is LcoKld and support["name"] == "top-k" else (None,)
            for outside in outsides:
                extra = {} if outside is None else {"outside": outside}
                found.append(config_type(advantage=SPARSE, beta=BETA, support=support, **extra))
    return found


@pytest.mark.parametrize(
    "config", lco_configs(), ids=lambda c: f"{c.name}-{c.support.name}-{getattr(c, 'outside', '')}"
)
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


def test_eq36_the_sft_hessian_is_the_fisher_matrix_and_never_negative(generator):
    now, actions = randn(generator, 40, V, scale=3), torch.randint(V, (40,), generator=generator)
    found = toy_hessians(lambda z: sft(z, actions), now)
    torch.testing.assert_close(found, fisher(now))
    eigenvalues = torch.linalg.eigvalsh(found)
    assert eigenvalues.min() > -1e-12
    kernel = torch.ones(V, dtype=torch.float64)
    torch.testing.assert_close(found @ kernel, torch.zeros(40, V, dtype=torch.float64), rtol=0, atol=1e-12)


def test_eq40_the_ppo_hessian_where_its_clip_is_inactive(case):
    old, advantages, now, actions, batch = case
    one_hot, probs = torch.nn.functional.one_hot(actions, V).double(), now.softmax(-1)
    ratio = (action_log_probs(now, actions) - action_log_probs(old, actions)).exp()
    gap = one_hot - probs
    expected = -(batch.advantages_N * ratio)[:, None, None] * (gap[:, :, None] * gap[:, None, :] - fisher(now))
    open_clip = Ppo(clip_low=1 - 1e-9, clip_high=1e9)
    torch.testing.assert_close(toy_hessians(lambda z: ppo(z, batch, open_clip), now), expected)


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
        smallest_curvature(lambda z, i=i: kl_divergence(target[i : i + 1], z.log_softmax(-1)), now[i])
        for i in range(10)
    ]
    assert min(frozen) > -1e-12
