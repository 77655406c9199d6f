"""Propositions 4.4 and 4.7-4.9, the mean-zero argument of 4.4 and the first step, in their true scope.

The numbers are those of `lco.analysis.theory`, taken from the objectives of `lco.losses` in float64 with V = 7.
"""

import itertools

import pytest
import torch

from lco.advantages import sparse
from lco.analysis import theory
from lco.analysis.dynamics import by_probability
from lco.analysis.toy import algorithms, descend_linear, logits_with, objectives, slope, step_batch
from lco.diagnostics import gradient_bound
from lco.losses import LOSSES, log_cosh
from tests.lco.cases import BETA, N, V, randn

CONVEX = ["sft", "lco-mse", "lco-lch", "lco-kld"]
LCO = ["lco-mse", "lco-lch", "lco-kld"]


@pytest.fixture(scope="module")
def numbers():
    return theory.analyse(seed=20260301)


def test_every_claim_of_the_analysis_holds(numbers):
    assert len(numbers["claims"]) >= 15
    assert [claim["claim"] for claim in numbers["claims"] if not claim["holds"]] == []


@pytest.mark.parametrize("name", CONVEX)
def test_proposition_4_4_a_better_point_lies_along_the_negative_gradient(numbers, name):
    points = numbers["directionality"][name]
    assert len(points["inner"]) == 500
    for inner, gain in zip(points["inner"], points["gain"], strict=True):
        assert inner >= gain - 1e-9 and gain >= 0


@pytest.mark.parametrize("name", [*CONVEX, "ppo-unclipped"])
def test_eq15_the_product_is_the_same_in_parameters_and_in_logits(numbers, name):
    assert numbers["directionality"][name]["chain_error"] < 1e-9


def test_ppo_has_better_points_against_its_gradient(numbers):
    inner = numbers["directionality"]["ppo-unclipped"]["inner"]
    assert 0.2 < sum(value < 0 for value in inner) / len(inner) < 0.8


@pytest.mark.parametrize("name", LCO)
def test_proposition_4_7_no_gradient_exceeds_its_bound_near_or_far(numbers, name):
    points = numbers["gradient_bounds"][name]
    assert max(points["ratio"]) <= 1 + 1e-9
    assert min(points["loss"]) < 1e-4 and max(points["loss"]) > 10


@pytest.mark.parametrize("name", ["lco-mse", "lco-lch"])
def test_eqs_16_and_17_are_met_with_equality_for_equal_residuals(numbers, name):
    assert max(numbers["gradient_bounds"][name]["ratio"]) == pytest.approx(1, abs=1e-6)


def test_eq18_holds_without_its_factor_of_the_root_of_2(numbers):
    assert 0.95 < max(numbers["gradient_bounds"]["lco-kld"]["sharp_ratio"]) <= 1 + 1e-6


@pytest.mark.parametrize("reduction", ["sum", "mean", "half-sum"])
@pytest.mark.parametrize("name", ["lco-mse", "lco-lch"])
def test_bounds_16_and_17_have_their_like_under_the_other_reductions(generator, name, reduction):
    old, advantages = randn(generator, N, V, scale=2), randn(generator, N, V)
    batch = step_batch(old, advantages, torch.zeros(N, dtype=torch.long))
    config = algorithms(BETA)[name].model_copy(update={"vocab_reduction": reduction})
    now = old + advantages / BETA + randn(generator, N, V) * torch.logspace(-3, 1, N, dtype=torch.float64)[:, None]
    jacobian = randn(generator, N, V, 5)

    def objective(logits):
        return LOSSES[type(config)](logits, batch, config)

    bound = torch.linalg.matrix_norm(jacobian, 2) * gradient_bound(objective(now), config, torch.full((N,), V))
    total, kind = objective(now), (name, reduction)
    sigma = torch.linalg.matrix_norm(jacobian, 2)
    printed = {
        ("lco-mse", "mean"): 2 * sigma * (total / V).sqrt(),
        ("lco-mse", "half-sum"): sigma * (2 * total).sqrt(),
        ("lco-lch", "mean"): sigma / V**0.5 * (-torch.expm1(-2 * total)).sqrt(),
    }
    if kind in printed:
        torch.testing.assert_close(bound, printed[kind])
    norm = torch.einsum("nvp,nv->np", jacobian, slope(objective, now)).norm(dim=-1)
    assert (norm <= bound * (1 + 1e-9) + 1e-12).all()


def test_eq55_the_squared_tangent_is_one_less_an_exponential_of_log_cosh():
    values = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    torch.testing.assert_close(values.tanh() ** 2, -torch.expm1(-2 * log_cosh(values)), rtol=0, atol=1e-12)


def test_the_kld_gradient_is_at_most_the_root_of_2_however_large_the_loss(generator):
    eye = torch.eye(V, dtype=torch.float64)
    old, advantages = 30 * eye[:1], 60 * eye[1:2] - 60 * eye[:1]
    objective = objectives(step_batch(old, advantages, torch.tensor([0])), 1.0)["lco-kld"]
    assert objective(old) > 10
    assert 1.41 < slope(objective, old).norm() <= 2**0.5 + 1e-12


def test_proposition_4_8_mse_falls_at_its_rate_with_a_full_rank_jacobian(numbers):
    run = numbers["convergence"]["mse"]
    assert run["rho"] < 1
    assert all(value <= bound * (1 + 1e-9) for value, bound in zip(run["value"], run["bound"], strict=True))
    assert run["value"][-1] < 1e-2 * run["value"][0]


def test_proposition_4_8_says_nothing_without_full_rank(numbers):
    run = numbers["convergence"]["mse_singular"]
    assert run["rho"] == pytest.approx(1)
    assert run["value"][-1] > 1e-2 and run["value"][-1] == pytest.approx(run["value"][-100], rel=1e-3)


def test_proposition_4_9_holds_near_the_target(numbers):
    run = numbers["convergence"]["lch_near"]
    pairs = [(value, bound) for value, bound in zip(run["value"], run["bound"], strict=True) if value > 1e-14]
    assert run["rho"] < 1 and len(pairs) > 20
    assert all(value <= bound * (1 + 1e-4) for value, bound in pairs)


def test_proposition_4_9_fails_far_from_the_target(numbers):
    run = numbers["convergence"]["lch_far"]
    assert max(value / bound for value, bound in zip(run["value"], run["bound"], strict=True)) > 10


def test_proposition_4_9_has_a_global_form_in_the_norm_of_the_inverse_kernel(numbers):
    run = numbers["convergence"]["lch_global"]
    assert run["rho"] < 1
    assert all(value <= bound * (1 + 1e-9) for value, bound in zip(run["value"], run["bound"], strict=True))


def test_advantages_of_mean_0_make_the_smallest_bound(generator):
    advantages = randn(generator, V) + 0.3
    shifts = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    norms = (advantages[:, None] + shifts).norm(dim=0)
    assert shifts[norms.argmin()].item() == pytest.approx(-advantages.mean().item(), abs=1e-3)


def test_on_average_no_shift_of_the_target_is_faster_for_mse(numbers):
    moved = numbers["shifts"]
    assert min(moved["bound"], key=moved["bound"].get) == min(moved["residual"], key=moved["residual"].get) == 0.0


def test_in_single_draws_another_shift_may_well_be_faster(numbers):
    assert 0.1 < numbers["shifts"]["share_helped"] < 1


def test_a_shift_of_the_target_does_nothing_to_the_policies_of_kld(numbers):
    assert numbers["shifts"]["kld_difference"] < 1e-9


def test_the_first_step_approaches_the_policy_gradient_like_one_over_beta(numbers):
    errors = numbers["first_step"]["error"]
    assert errors[2] < 0.15 * errors[1] < 0.03 * errors[0]


def test_the_first_step_of_mse_is_the_natural_gradient(generator):
    """2 A / beta: the direction F^+ applied to the policy gradient, up to a constant that no policy sees."""
    old, advantages = randn(generator, 1, V, scale=2), randn(generator, 1, V)
    objective = objectives(step_batch(old, advantages, torch.tensor([0])), BETA)["lco-mse"]
    step = -slope(objective, old)[0]
    torch.testing.assert_close(step, 2 * advantages[0] / BETA)
    probs = old.softmax(-1)[0]
    fisher = torch.diag(probs) - probs[:, None] * probs
    policy_gradient = probs * (advantages[0] - probs @ advantages[0])
    torch.testing.assert_close(fisher @ step, 2 / BETA * policy_gradient)


def test_the_first_step_of_a_sparse_advantage_is_reinforce_damped_by_the_probability(generator):
    old, actions, beta = randn(generator, N, V, scale=2), torch.randint(V, (N,), generator=generator), 1e6
    batch = step_batch(old, sparse(actions, torch.full((N,), 0.7, dtype=torch.float64), V), actions)
    losses = objectives(batch, beta)
    reinforce = slope(losses["reinforce"], old)
    probability = old.softmax(-1).gather(1, actions[:, None])
    torch.testing.assert_close(beta * slope(losses["lco-kld"], old), probability * reinforce, rtol=0, atol=1e-5)


# The bandit of method 6.4.7: a tabular softmax with fixed advantages.


def bandit(name, start, advantages, rate, num_steps, beta=BETA):
    batch = step_batch(start, advantages, torch.zeros(len(start), dtype=torch.long))
    objective = objectives(batch, beta)[name]
    eye = torch.eye(start.shape[1], dtype=torch.float64)[None]
    path = descend_linear(objective, start, eye, rate, num_steps)
    return path, [slope(objective, logits).norm(dim=-1) for logits in path]


@pytest.mark.parametrize(("name", "rate", "num_steps"), [("lco-kld", 2.0, 1000), ("lco-mse", 0.2, 60)])
def test_a_bandit_converges_to_the_optimal_policy_under_lco(generator, name, rate, num_steps):
    start, advantages = randn(generator, 5, V, scale=2), randn(generator, 5, V)
    path, norms = bandit(name, start, advantages, rate, num_steps)
    expected = (start + advantages / BETA).softmax(-1)
    torch.testing.assert_close(path[-1].softmax(-1), expected, rtol=0, atol=1e-3)
    for earlier, later in itertools.pairwise(norms):
        assert (later <= earlier * (1 + 1e-9)).all(), "the gradient never grows"


@pytest.mark.parametrize(
    ("name", "sign", "rate"), [("ppo-unclipped", 1, 0.1), ("ppo-unclipped", -1, 0.5), ("reinforce", -1, 0.05)]
)
def test_a_bandits_gradient_first_grows_under_the_policy_gradient(name, sign, rate):
    start = logits_with(0.1 if sign > 0 else 0.95, V)
    advantages = torch.zeros(1, V, dtype=torch.float64)
    advantages[0, 0] = sign
    path, norms = bandit(name, start, advantages, rate, 400)
    sizes = [float(norm) for norm in norms]
    peak = max(range(len(sizes)), key=sizes.__getitem__)
    assert peak > 3 and sizes[peak] > 1.5 * sizes[0], "it rises"
    if name.startswith("ppo"):
        assert peak < 400 and sizes[-1] < 0.5 * sizes[peak], "and falls"
        assert float(path[peak].softmax(-1)[0, 0]) == pytest.approx(0.5, abs=0.06)


def test_fig4_ppos_gradient_on_the_sampled_logit_is_largest_at_one_half(generator):
    for sign in (-1, 1):
        curve = by_probability("ppo-unclipped", sign)
        gradients = curve["gradient"]
        assert curve["probability"][max(range(len(gradients)), key=gradients.__getitem__)] == pytest.approx(
            0.5, abs=0.01
        )
