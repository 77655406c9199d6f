"""Optimal policy and optimal logits (Eqs. 6, 7) and the targets of each objective, in float64 with V = 7."""

import pytest
import torch

from lco.advantage_config import SparseAdvantage
from lco.advantages import dense_dpo, dense_logprob, reference_kl_advantages, top_k_support
from lco.algorithms import LcoKld, LcoLch, LcoMse, TopKSupport
from lco.log_probs import kl_divergence
from lco.losses import LOSSES
from lco.targets import fitted_and_target, gauged, optimal_log_probs, optimal_logits, target_log_probs, token_beta
from tests.lco.cases import V, log_tail, randn, token_batch

SPARSE = SparseAdvantage(estimator="reward")
TOP_3 = TopKSupport(k=3, source="policy")


def residuals(logits_NV, batch, config):
    current, target = fitted_and_target(logits_NV, batch, config)
    return current - target


def test_eq6_optimal_policy_is_the_tilted_behaviour_policy(generator):
    z_old, advantages = randn(generator, 50, V, scale=2), randn(generator, 50, V, scale=3)
    weights = z_old.softmax(-1) * (advantages / 0.7).exp()
    torch.testing.assert_close(optimal_log_probs(z_old, advantages, 0.7).exp(), weights / weights.sum(-1, keepdim=True))


def test_eq7_optimal_logits_are_old_logits_plus_advantage_over_beta(generator):
    z_old, advantages = randn(generator, 5, V), randn(generator, 5, V)
    torch.testing.assert_close(optimal_logits(z_old, advantages, 0.3), z_old + advantages / 0.3, rtol=0, atol=0)
    torch.testing.assert_close(
        optimal_logits(z_old, advantages, 0.3).softmax(-1), optimal_log_probs(z_old, advantages, 0.3).exp()
    )


def test_eq2_no_policy_beats_the_optimal_policy_and_its_value_is_a_logsumexp(generator):
    beta = 0.8
    z_old, advantages = randn(generator, V, scale=2), randn(generator, V, scale=2)
    log_old = z_old.log_softmax(-1)

    def objective(log_probs):
        return (log_probs.exp() * advantages).sum(-1) - beta * kl_divergence(log_probs, log_old)

    best = objective(optimal_log_probs(z_old, advantages, beta))
    torch.testing.assert_close(best, beta * (log_old + advantages / beta).logsumexp(-1))
    assert objective(randn(generator, 500, V, scale=3).log_softmax(-1)).max() <= best


def test_a_dpo_advantage_on_its_own_reference_aims_at_the_dpo_policy_itself(generator):
    reference, dpo = randn(generator, 20, V), randn(generator, 20, V)
    target = optimal_log_probs(reference, dense_dpo(dpo, reference, 0.1), 0.1)
    torch.testing.assert_close(target, dpo.log_softmax(-1))


def test_a_logprob_advantage_aims_at_the_product_of_both_models(generator):
    old, model = randn(generator, 20, V), randn(generator, 20, V)
    product = old.softmax(-1) * model.softmax(-1) ** (1 / 0.6)
    target = optimal_log_probs(old, dense_logprob(model), 0.6)
    torch.testing.assert_close(target.exp(), product / product.sum(-1, keepdim=True))


def test_full_reference_pull_aims_at_the_dpo_policy_from_any_behaviour_policy(generator):
    initial, dpo, old = (randn(generator, 20, V) for _ in range(3))
    advantages = dense_dpo(dpo, initial, 0.1) + reference_kl_advantages(old, initial, 0.1)
    torch.testing.assert_close(optimal_log_probs(old, advantages, 0.1), dpo.log_softmax(-1))


@pytest.mark.parametrize("pull", [0.3, 0.5, 2.0])
def test_iterated_reference_pull_settles_at_the_stated_mixture(generator, pull):
    initial, dpo = randn(generator, V), randn(generator, V)
    policy = initial
    for _ in range(200):
        advantages = dense_dpo(dpo, initial, 0.1) + reference_kl_advantages(policy, initial, pull * 0.1)
        policy = optimal_logits(policy, advantages, 0.1 * max(1.0, pull))
    mixture = (1 - 1 / pull) * initial.log_softmax(-1) + dpo.log_softmax(-1) / pull
    torch.testing.assert_close(policy.log_softmax(-1), mixture.log_softmax(-1))


def test_sparse_advantage_has_the_closed_form_target(generator):
    z_old = randn(generator, V)
    probs, action, advantage, beta = z_old.softmax(-1), 3, 0.9, 0.4
    advantages = torch.zeros(V, dtype=torch.float64)
    advantages[action] = advantage
    growth = probs[action] * (torch.tensor(advantage / beta).exp() - 1)
    expected = probs / (1 + growth)
    expected[action] = probs[action] * torch.tensor(advantage / beta).exp() / (1 + growth)
    torch.testing.assert_close(optimal_log_probs(z_old, advantages, beta).exp(), expected)


def frozen_tail_case(generator, outside="frozen-tail", anchor="old"):
    old, advantages, now = randn(generator, 30, V), randn(generator, 30, V), randn(generator, 30, V)
    actions = torch.randint(V, (30,), generator=generator)
    ids, valid = top_k_support([old], 3, actions)
    tail_advantages = randn(generator, 30)
    batch = token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid, tail_advantages_N=tail_advantages)
    config = LcoKld(advantage=SPARSE, beta=0.7, support=TOP_3, outside=outside, anchor=anchor)
    inside = torch.zeros(30, V, dtype=torch.bool).scatter(1, ids, True)
    return old, advantages, now, tail_advantages, batch, config, inside


@pytest.mark.parametrize("anchor", ["old", "current"])
def test_frozen_tail_gives_the_tail_its_tilted_mass_and_the_policys_own_split(generator, anchor):
    old, advantages, now, tail_advantages, batch, config, inside = frozen_tail_case(generator, anchor=anchor)
    base = (old if anchor == "old" else now).softmax(-1)
    tilted = torch.where(inside, base * (advantages / 0.7).exp(), 0.0)
    tail_mass = base.masked_fill(inside, 0.0).sum(-1, keepdim=True) * (tail_advantages[:, None] / 0.7).exp()
    split = now.softmax(-1).masked_fill(inside, 0.0)
    expected = tilted + tail_mass * split / split.sum(-1, keepdim=True)
    target = target_log_probs(now.log_softmax(-1), batch, config).exp()
    torch.testing.assert_close(target, expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(target.sum(-1), torch.ones(30, dtype=torch.float64))


def test_zero_mass_leaves_nothing_outside_the_support(generator):
    old, advantages, now, _, batch, config, inside = frozen_tail_case(generator, outside="zero-mass")
    tilted = torch.where(inside, old.softmax(-1) * (advantages / 0.7).exp(), 0.0)
    target = target_log_probs(now.log_softmax(-1), batch, config).exp()
    torch.testing.assert_close(target, tilted / tilted.sum(-1, keepdim=True))
    assert (target[~inside] == 0).all()


@pytest.mark.parametrize("outside", ["frozen-tail", "zero-mass"])
def test_a_support_of_every_entry_gives_the_full_target(generator, outside):
    old, advantages, now = randn(generator, 30, V), randn(generator, 30, V), randn(generator, 30, V)
    actions = torch.randint(V, (30,), generator=generator)
    ids, valid = top_k_support([old], V, actions)
    batch = token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid)
    config = LcoKld(advantage=SPARSE, beta=0.7, support=TopKSupport(k=V, source="policy"), outside=outside)
    target = target_log_probs(now.log_softmax(-1), batch, config)
    torch.testing.assert_close(target, optimal_log_probs(old, advantages, 0.7))


def test_dpo_tail_advantage_is_exact_when_the_models_split_the_tail_alike(generator):
    old, reference, dpo = (randn(generator, 10, V) for _ in range(3))
    actions = torch.randint(V, (10,), generator=generator)
    ids, valid = top_k_support([old], 3, actions)
    inside = torch.zeros(10, V, dtype=torch.bool).scatter(1, ids, True)
    dpo = torch.where(inside, dpo, reference + 0.4)  # one common ratio outside
    tail = 0.1 * (log_tail(dpo, ids) - log_tail(reference, ids))
    batch = token_batch(
        old, dense_dpo(dpo, reference, 0.1), actions, ids_NK=ids, valid_NK=valid, tail_advantages_N=tail
    )
    config = LcoKld(advantage=SPARSE, beta=0.1, support=TOP_3)
    full = optimal_log_probs(old, dense_dpo(dpo, reference, 0.1), 0.1)
    torch.testing.assert_close(target_log_probs(old.log_softmax(-1), batch, config), full)


def test_negative_beta_factor_multiplies_beta_where_the_sampled_advantage_is_not_positive():
    advantages = torch.zeros(3, V, dtype=torch.float64)
    advantages[:, 0] = torch.tensor([1.0, 0.0, -1.0])
    batch = token_batch(torch.zeros(3, V, dtype=torch.float64), advantages, torch.zeros(3, dtype=torch.long))
    config = LcoKld(advantage=SPARSE, beta=0.5, negative_beta_factor=100)
    assert token_beta(batch, config)[:, 0].tolist() == [0.5, 50.0, 50.0]


def test_agreement_gate_multiplies_beta_where_both_models_are_sure():
    batch = token_batch(
        torch.zeros(2, V, dtype=torch.float64),
        torch.ones(2, V, dtype=torch.float64),
        torch.zeros(2, dtype=torch.long),
        is_agreed_N=torch.tensor([True, False]),
    )
    logprob = {"name": "logprob", "reward_model": "m"}
    gated = LcoMse(advantage=logprob, beta=0.5, center=True, gate_threshold=-0.02)
    open_gate = LcoMse(advantage=logprob, beta=0.5, center=True)
    assert token_beta(batch, gated)[:, 0].tolist() == [50.0, 0.5]
    assert token_beta(batch, open_gate)[:, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("gauge", "representative"),
    [
        ("raw", lambda z: z),
        ("max-shift", lambda z: z - z.amax(-1, keepdim=True)),
        ("logprob", lambda z: z.log_softmax(-1)),
    ],
)
def test_residuals_compare_the_gauges_representative_on_both_sides(generator, gauge, representative):
    old, advantages, now = randn(generator, 20, V), randn(generator, 20, V), randn(generator, 20, V)
    actions = torch.randint(V, (20,), generator=generator)
    expected = representative(now) - (representative(old) + advantages / 0.7)
    full = LcoMse(advantage=SPARSE, beta=0.7, support={"name": "full"}, gauge=gauge)
    torch.testing.assert_close(residuals(now, token_batch(old, advantages, actions), full), expected)
    ids, valid = top_k_support([old], 3, actions)
    batch = token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid)
    some = LcoMse(advantage=SPARSE, beta=0.7, support=TOP_3, gauge=gauge)
    torch.testing.assert_close(residuals(now, batch, some), expected.gather(1, ids).masked_fill(~valid, 0.0))


def test_max_shift_gauge_does_not_follow_the_gradient_of_the_maximum(generator):
    batch = token_batch(randn(generator, 1, V), randn(generator, 1, V), torch.tensor([0]))
    logits = randn(generator, 1, V).requires_grad_(True)
    gauged(logits, batch.support, "max-shift").sum().backward()
    torch.testing.assert_close(logits.grad, torch.ones(1, V, dtype=torch.float64))


@pytest.mark.parametrize("config_type", [LcoMse, LcoLch])
@pytest.mark.parametrize("gauge", ["raw", "max-shift", "logprob"])
def test_current_anchor_leaves_a_constant_residual(generator, config_type, gauge):
    advantages = randn(generator, 4, V)
    batch = token_batch(randn(generator, 4, V), advantages, torch.zeros(4, dtype=torch.long))
    config = config_type(advantage=SPARSE, beta=0.5, support={"name": "full"}, anchor="current", gauge=gauge)
    torch.testing.assert_close(residuals(randn(generator, 4, V), batch, config), -advantages / 0.5)


@pytest.mark.parametrize("beta", [0.1, 1e-3])
def test_a_support_needs_no_fill_that_a_small_beta_could_overflow(generator, beta):
    assert torch.isinf(torch.tensor(-100.0).half() / torch.tensor(1e-3).half()), "the fill that is not there"
    old, advantages = randn(generator, 20, V).float(), randn(generator, 20, V).float()
    actions = torch.zeros(20, dtype=torch.long)
    ids, valid = top_k_support([old], 3, actions)
    batch = token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid, tail_advantages_N=torch.zeros(20))
    config = LcoKld(advantage=SPARSE, beta=beta, support=TOP_3, outside="zero-mass")
    logits = old.clone().requires_grad_(True)
    loss = LOSSES[LcoKld](logits, batch, config).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
