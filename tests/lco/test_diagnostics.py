"""What a training step reports, against direct forms."""

import pytest
import torch

from lco.advantage_config import SparseAdvantage
from lco.algorithms import LcoKld, LcoMse
from lco.baselines import Ppo
from lco.diagnostics import entropy, gradient_norm, token_sums
from lco.targets import optimal_log_probs
from tests.lco.cases import V, randn, token_batch

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
