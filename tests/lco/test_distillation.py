"""The distillation baselines against direct forms, in float64; what they add to sampling, scoring and weights."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from lco.advantage_config import LogprobAdvantage
from lco.baselines import (
    Gkd,
    Grpo,
    MiniLlm,
)
from lco.collection import collect
from lco.distillation import gkd, jensen_shannon, later_log_ratios, minillm
from lco.estimation import Estimator
from lco.log_probs import action_log_probs, kl_divergence, mixture_log_probs
from lco.policy import load_policy
from lco.policy_gradients import (
    ppo,
)
from lco.prompts import Prompt, load_prompts
from lco.train import _minibatch
from tests.lco.cases import V, gradient, randn, token_batch

COUNTS = torch.tensor([3, 1, 4, 2])
N = 10
TOKEN_RATIO = {"name": "dpo-ratio", "reward_model": "rm", "credit": "token"}
TEACHER = LogprobAdvantage(reward_model="teacher")


@pytest.fixture
def case(generator):
    """Current logits and the batch of four sequences that another policy sampled."""
    old, now, teacher = (randn(generator, N, V) for _ in range(3))
    actions = torch.randint(V, (N,), generator=generator)
    batch = token_batch(old, teacher.log_softmax(-1), actions, reference_logits_NV=teacher)
    batch.num_tokens_B = COUNTS
    batch.advantages_N = randn(generator, 4).repeat_interleave(COUNTS)
    return now, batch


def log_ratios(now, batch):
    return (action_log_probs(now, batch.actions_N) - batch.behaviour_logprobs_N).split(COUNTS.tolist())


def surrogate(ratio, advantage, low, high):
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def prepared(config):
    policy = load_policy(Path(config.policy), config)
    return policy, load_prompts(config.prompts), Estimator(config, policy)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_gkd_is_the_generalised_jensen_shannon_divergence(case, beta):
    now, batch = case
    p, q = batch.support.advantages_NK.exp(), now.softmax(-1)
    m = beta * p + (1 - beta) * q
    expected = (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(-1)
    torch.testing.assert_close(gkd(now, batch, Gkd(advantage=TEACHER, jsd_beta=beta)), expected)


def test_gkd_at_its_ends_is_the_limit_of_the_divergence_over_its_weight(case):
    now, batch = case
    p, q = batch.support.advantages_NK, now.log_softmax(-1)
    small = 1e-6
    torch.testing.assert_close(jensen_shannon(p, q, 0.0), kl_divergence(p, q))
    torch.testing.assert_close(jensen_shannon(p, q, 1.0), kl_divergence(q, p))
    torch.testing.assert_close(jensen_shannon(p, q, small) / small, kl_divergence(p, q), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(jensen_shannon(p, q, 1 - small) / small, kl_divergence(q, p), rtol=1e-4, atol=1e-6)


def test_minillm_adds_the_exact_step_to_the_surrogate(case):
    now, batch = case
    config = MiniLlm(advantage=TEACHER)
    expected = ppo(now, batch, Grpo()) + kl_divergence(now.log_softmax(-1), batch.support.advantages_NK)
    torch.testing.assert_close(minillm(now, batch, config), expected)


def test_minillm_weighs_the_exact_step_and_the_ratio_of_a_token_drawn_from_the_mixture(case):
    now, batch = case
    teacher = action_log_probs(batch.support.advantages_NK, batch.actions_N)
    mixture = mixture_log_probs(batch.behaviour_logprobs_N, teacher, 0.2)
    batch.importance_N = (batch.behaviour_logprobs_N - mixture).exp()
    ratio = (action_log_probs(now, batch.actions_N) - mixture).exp()
    divergence = kl_divergence(now.log_softmax(-1), batch.support.advantages_NK)
    expected = surrogate(ratio, batch.advantages_N, 0.2, 0.2) + batch.importance_N * divergence
    torch.testing.assert_close(minillm(now, batch, MiniLlm(advantage=TEACHER)), expected)


def test_a_demonstration_beside_the_completions_is_imitated(case):
    now, batch = case
    plain = minillm(now, batch, MiniLlm(advantage=TEACHER))
    batch.is_demonstration_B = torch.tensor([False, False, True, False])
    is_shown = batch.is_demonstration_B.repeat_interleave(COUNTS)
    found = minillm(now, batch, MiniLlm(advantage=TEACHER, lm_weight=1.0))
    torch.testing.assert_close(found[is_shown], -action_log_probs(now, batch.actions_N)[is_shown])
    torch.testing.assert_close(found[~is_shown], plain[~is_shown])


@pytest.mark.parametrize("is_inclusive", [False, True])
@pytest.mark.parametrize("length_normalized", [False, True])
def test_minillms_advantage_is_made_of_the_later_log_ratios_of_the_same_sequence(
    generator, is_inclusive, length_normalized
):
    values = randn(generator, N)
    expected = []
    for part in values.split(COUNTS.tolist()):
        for t in range(len(part)):
            rest = part[t if is_inclusive else t + 1 :]
            expected.append(rest.sum() / (len(rest) or 1) if length_normalized else rest.sum())
    found = later_log_ratios(values, COUNTS, is_inclusive=is_inclusive, length_normalized=length_normalized)
    torch.testing.assert_close(found, torch.stack(expected))


def test_expected_minillm_gradient_is_that_of_the_reverse_divergence_of_sequences(generator):
    """Two-step sequences, all of them weighted by their probability: the gradient of sum_y q(y) log(q(y) / p(y))."""
    first, second = randn(generator, 1, 3), randn(generator, 3, 3)
    teacher_first, teacher_second = randn(generator, 1, 3).log_softmax(-1), randn(generator, 3, 3).log_softmax(-1)

    def exact(first, second):
        q = first.log_softmax(-1).T + second.log_softmax(-1)
        return (q.exp() * (q - teacher_first.T - teacher_second)).sum()

    def estimate(first, second):
        total = 0.0
        for a in range(3):
            for b in range(3):
                now = torch.cat([first, second[a : a + 1]])
                teacher = torch.cat([teacher_first, teacher_second[a : a + 1]])
                actions = torch.tensor([a, b])
                batch = token_batch(now.detach(), teacher, actions)
                batch.num_tokens_B = torch.tensor([2])
                ratios = batch.advantages_N - batch.behaviour_logprobs_N
                batch.advantages_N = later_log_ratios(
                    ratios, batch.num_tokens_B, is_inclusive=False, length_normalized=False
                )
                weight = batch.behaviour_logprobs_N.sum().exp()
                total = total + weight * minillm(now, batch, MiniLlm(advantage=TEACHER)).sum()
        return total

    first.requires_grad_(True)
    second.requires_grad_(True)
    expected = torch.autograd.grad(exact(first, second), [first, second])
    found = torch.autograd.grad(estimate(first, second), [first, second])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_drawing_from_the_mixture_leaves_the_expected_one_step_gradient_as_it_is(generator):
    """One-token sequences drawn from the mixture, each weighted by its probability there."""
    student, teacher = randn(generator, 1, 4), randn(generator, 1, 4).log_softmax(-1)
    config = MiniLlm(advantage=TEACHER, single_step=False, clip_low=0.999, clip_high=1e6)
    expected = gradient(lambda z: kl_divergence(z.log_softmax(-1), teacher), student)
    old = student.log_softmax(-1)
    mixture = mixture_log_probs(old, teacher, 0.3)

    def estimate(z):
        total = 0.0
        for action in range(4):
            batch = token_batch(student, teacher, torch.tensor([action]))
            batch.advantages_N = (teacher - old)[:, action]
            batch.importance_N = (old - mixture)[:, action].exp()
            total = total + mixture[0, action].exp() * minillm(z, batch, config)
        return total

    torch.testing.assert_close(gradient(estimate, student), expected)


def test_gkd_takes_a_share_of_demonstrations(config_of):
    base = config_of("gkd", prompts={"name": "sums", "num_terms": 2, "num_problems": 20}, group_size=16)
    policy, prompts, _ = prepared(base)
    own = collect(base, policy, prompts, 0)
    mixed_config = base.model_copy(update={"algorithm": base.algorithm.model_copy(update={"on_policy_share": 0.5})})
    mixed = collect(mixed_config, policy, prompts, 0)
    demonstrated = [policy.encode_completion(r.prompt.demonstration) for r in mixed]
    is_data = [r.completion_ids == d for r, d in zip(mixed, demonstrated, strict=True)]
    assert 16 <= sum(is_data) <= 48
    for a, b, data in zip(own, mixed, is_data, strict=True):
        assert data or a.completion_ids == b.completion_ids
    none = [Prompt(id="0", text="1+2=", reference="3")]
    with pytest.raises(ValueError, match="has no demonstration"):
        collect(mixed_config, policy, none, 0)


def test_minillm_samples_from_the_mixture_and_keeps_its_weights(config_of):
    config = config_of("minillm")
    policy, prompts, estimator = prepared(config)
    rollouts = collect(config, estimator.behaviour, prompts, 0)
    assert [r.completion_ids for r in rollouts] != [r.completion_ids for r in collect(config, policy, prompts, 0)]
    batch = estimator.batch(rollouts)
    teacher = action_log_probs(batch.support.advantages_NK, batch.actions_N)
    old = batch.behaviour_logprobs_N
    torch.testing.assert_close(batch.importance_N, old.exp() / (0.2 * teacher.exp() + 0.8 * old.exp()))
    assert Estimator(config_of("minillm-alone"), policy).behaviour is policy


def test_minillm_puts_a_demonstration_beside_each_completion_with_a_mean_of_its_own(config_of):
    base = config_of("minillm", prompts={"name": "sums", "num_terms": 2, "num_problems": 20}, steps_per_epoch=1)
    config = base.model_copy(update={"algorithm": base.algorithm.model_copy(update={"lm_weight": 0.5})})
    policy, prompts, estimator = prepared(config)
    rollouts = collect(config, estimator.behaviour, prompts, 0)
    batch = estimator.batch(rollouts)
    assert batch.is_demonstration_B.tolist() == [False] * 16 + [True] * 16
    shown = batch.select(torch.arange(16, 32)).actions_N.tolist()
    assert shown == [t for r in rollouts for t in policy.encode_completion(r.prompt.demonstration)]
    part = _minibatch(config, batch, 0, 0)
    is_shown = part.is_demonstration_B.repeat_interleave(part.num_tokens_B)
    assert part.weights_N[~is_shown].sum().item() == pytest.approx(1)
    assert part.weights_N[is_shown].sum().item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="lm_weight: the prompt x has no demonstration"):
        estimator.batch([dataclasses.replace(rollouts[0], prompt=Prompt(id="x", text="1+2=", reference="3"))])


def test_the_weights_of_a_mixture_are_refused_where_sampling_is_not_at_temperature_1(config_of):
    with pytest.raises(ValidationError, match="sampling: the weights of `teacher_mix`"):
        config_of("minillm", sampling={"temperature": 0.6})
    config_of("minillm-alone", sampling={"temperature": 0.6})


def test_mixing_the_student_with_itself_is_only_b_times_the_forward_divergence(generator):
    """What the authors' trainer does; ours mixes with the teacher and pulls elsewhere."""
    student, teacher, share = randn(generator, 5, V), randn(generator, 5, V).log_softmax(-1), 0.3

    def of_one_mixture(logits):
        log_probs = logits.log_softmax(-1)
        mixture = torch.logaddexp(log_probs + math.log(share), log_probs + math.log1p(-share))
        return share * kl_divergence(teacher, mixture) + (1 - share) * kl_divergence(log_probs, mixture)

    forward = share * (student.softmax(-1) - teacher.exp())
    torch.testing.assert_close(gradient(of_one_mixture, student), forward)
    ours = gradient(lambda logits: jensen_shannon(teacher, logits.log_softmax(-1), share), student)
    assert (ours - forward).abs().max() > 0.01
