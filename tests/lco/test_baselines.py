"""The baselines against direct forms, in float64; what DAPO, GKD and DPO-ratio rewards add to sampling and scoring."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from lco.advantage_config import LogprobAdvantage
from lco.advantages import batch_scaled, group_centered, group_normalized, overlong_penalty, without_outliers
from lco.algorithms import Algorithm
from lco.baselines import (
    Cispo,
    ClipCov,
    Dcpo,
    Grpo,
    Gspo,
    KlCov,
    ReinforcePlusPlusBaseline,
    Rloo,
    StableReinforce,
)
from lco.collection import collect, prompt_indices
from lco.estimation import Estimator, completion_ratios
from lco.log_probs import action_log_probs
from lco.losses import token_weights
from lco.policy import load_policy
from lco.policy_gradients import (
    cispo,
    clip_bounds,
    clip_cov,
    covariances,
    dcpo,
    grpo,
    gspo,
    kl_cov,
    marked_tokens,
    ppo,
    reinforce,
    reinforce_baseline,
    rloo,
    sequence_sums,
)
from lco.prompts import Prompt, load_prompts
from lco.reward_history import RewardHistory
from lco.reward_model import load_reward_model
from lco.rollout import Rollout
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


def per_sequence(batch):
    return torch.stack([part[0] for part in batch.advantages_N.split(COUNTS.tolist())])


def test_rloo_takes_the_ratio_of_whole_completions(case):
    now, batch = case
    ratio = torch.stack([part.sum() for part in log_ratios(now, batch)]).exp()
    expected = surrogate(ratio, per_sequence(batch), 0.2, 0.2).repeat_interleave(COUNTS)
    torch.testing.assert_close(rloo(now, batch, Rloo()), expected)


def test_gspo_takes_the_geometric_mean_of_the_tokens_ratios(case):
    now, batch = case
    ratio = torch.stack([part.mean() for part in log_ratios(now, batch)]).exp()
    expected = surrogate(ratio, per_sequence(batch), 3e-4, 4e-4).repeat_interleave(COUNTS)
    torch.testing.assert_close(gspo(now, batch, Gspo()), expected)


def test_grpo_at_sequence_level_with_gspos_range_is_gspo(case):
    now, batch = case
    config = Grpo(ratio_level="sequence", clip_low=3e-4, clip_high=4e-4)
    torch.testing.assert_close(grpo(now, batch, config), gspo(now, batch, Gspo()))
    torch.testing.assert_close(
        gradient(lambda z: grpo(z, batch, config), now), gradient(lambda z: gspo(z, batch, Gspo()), now)
    )


def test_every_ratio_is_one_at_the_behaviour_policy(case):
    """There each clipped method has the gradient of REINFORCE; the completion's ratio has that of all its tokens."""
    _, batch = case
    old = batch.support.behaviour_logits_NK
    expected = gradient(lambda z: reinforce(z, batch, None), old)
    for loss, config in ((ppo, Grpo()), (cispo, Cispo())):
        torch.testing.assert_close(gradient(lambda z, f=loss, c=config: f(z, batch, c), old), expected)
    weights = token_weights(COUNTS, "sequence-mean").double()[:, None]
    mean = gradient(lambda z: rloo(z, batch, Rloo()) * weights[:, 0], old)
    torch.testing.assert_close(mean, expected / 4, rtol=1e-6, atol=1e-8)


def test_cispo_keeps_the_gradient_of_tokens_that_ppo_clips(case):
    now, batch = case
    config = Cispo(ratio_cap=1.2)
    ratio = torch.cat(log_ratios(now, batch)).exp()
    assert (ratio > 1.2).any() and (ratio < 0.8).any()
    found = gradient(lambda z: cispo(z, batch, config), now)
    score = gradient(lambda z: action_log_probs(z, batch.actions_N), now)
    torch.testing.assert_close(found, -(ratio.clamp(max=1.2) * batch.advantages_N)[:, None] * score)


def test_k2_pulls_to_the_start_in_reinforce_plus_plus_baseline(case):
    now, batch = case
    gap = action_log_probs(now, batch.actions_N) - batch.reference_logprobs_N
    found = reinforce_baseline(now, batch, ReinforcePlusPlusBaseline(kl_weight=0.3))
    torch.testing.assert_close(found, ppo(now, batch, Grpo()) + 0.3 * gap**2 / 2)


def test_clip_cov_detaches_and_kl_cov_penalises_the_marked_tokens(case):
    now, batch = case
    batch.is_marked_N = torch.arange(N) % 3 == 0
    found = gradient(lambda z: clip_cov(z, batch, ClipCov()), now)
    assert not found[batch.is_marked_N].any()
    torch.testing.assert_close(
        found[~batch.is_marked_N], gradient(lambda z: ppo(z, batch, Grpo()), now)[~batch.is_marked_N]
    )
    log_ratio = torch.cat(log_ratios(now, batch))
    expected = -log_ratio.exp() * batch.advantages_N + log_ratio.abs() * 0.5 * batch.is_marked_N
    torch.testing.assert_close(kl_cov(now, batch, KlCov(penalty_weight=0.5)), expected)


def test_kl_cov_marks_the_largest_covariances_and_clip_cov_a_random_share_inside_its_bounds(generator):
    log_probs, advantages = randn(generator, 1000), randn(generator, 1000)
    values = covariances(log_probs, advantages)
    torch.testing.assert_close(values.mean() * 1000 / 999, torch.cov(torch.stack([log_probs, advantages]))[0, 1])
    uniforms = torch.rand(1000, generator=generator, dtype=torch.float64)
    marked = marked_tokens(log_probs, advantages, KlCov(share=0.01), uniforms)
    assert marked.sum() == 10 and values[marked].min() > values[~marked].max()
    config = ClipCov(share=0.01, covariance_low=0.5, covariance_high=2.0)
    marked = marked_tokens(log_probs, advantages, config, uniforms)
    inside = (values > 0.5) & (values < 2)
    assert marked.sum() == 10 and not (marked & ~inside).any()
    assert uniforms[marked].max() < uniforms[inside & ~marked].min()
    for share, count in ((0.0, 0), (1e-9, 1)):
        assert marked_tokens(log_probs, advantages, KlCov(share=share), uniforms).sum() == count


def test_dcpo_lets_the_ratio_move_until_its_gap_times_ratio_and_old_probability_reach_the_bound(case):
    _, batch = case
    config = Dcpo(clip_low=0.02, clip_high=0.03, ratio_cap=1000)
    low, high = clip_bounds(batch, config)
    q = batch.behaviour_logprobs_N.exp()
    torch.testing.assert_close((high - 1) * high * q, torch.full_like(q, 0.03))
    has_bound = q > 4 * 0.02
    assert has_bound.any() and not has_bound.all()
    torch.testing.assert_close(((1 - low) * low * q)[has_bound], torch.full_like(q, 0.02)[has_bound])
    assert (low[~has_bound] == 0.5).all()
    rarer = q.argsort()
    assert (high[rarer].diff() <= 0).all() and (low[rarer].diff() >= 0).all(), "rare tokens have more room"


def test_dcpo_is_the_surrogate_with_those_bounds_and_no_ratio_above_its_cap(case):
    now, batch = case
    config = Dcpo(clip_low=0.02, clip_high=0.03, ratio_cap=1.5)
    ratio, advantage = torch.cat(log_ratios(now, batch)).exp(), batch.advantages_N
    low, high = clip_bounds(batch, config)
    assert (ratio > 1.5).any() and (high == 1.5).any()
    clipped = torch.minimum(torch.maximum(ratio, low), high)
    expected = -torch.minimum(ratio.clamp(max=1.5) * advantage, clipped * advantage)
    torch.testing.assert_close(dcpo(now, batch, config), expected)


def test_smooth_advantages_mix_the_groups_scores_with_those_among_all_rewards_of_the_prompt():
    history = RewardHistory()
    groups = [[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, 1.0]]
    seen: list[float] = []
    for number, group in enumerate(groups, start=1):
        seen += group
        rewards, past = torch.tensor(group, dtype=torch.float64), torch.tensor(seen, dtype=torch.float64)
        in_group = (rewards - rewards.mean()) / rewards.std() if rewards.std() > 0 else torch.zeros(4).double()
        among_all = (rewards - past.mean()) / past.std()
        late = (number - 1) / number
        new, total = late * in_group + (1 - late) * among_all, (1 - late) * in_group + late * among_all
        expected = torch.where(new.abs() < total.abs(), new, total)
        found = torch.tensor(history.smoothed("p", group), dtype=torch.float64)
        torch.testing.assert_close(found, expected)
        if number == 1:
            torch.testing.assert_close(found, group_normalized(rewards, 4), rtol=1e-3, atol=0)
        if number == 2:
            assert (found > 0).all(), "a group of equal rewards keeps an advantage"
    again = RewardHistory(history.state())
    assert again.smoothed("p", groups[0]) == history.smoothed("p", groups[0])
    assert again.smoothed("other", [1.0, 1.0]) == [0.0, 0.0]


def test_stable_reinforce_bounds_the_log_ratio_before_the_clip(case):
    now, batch = case
    config = StableReinforce(pre_clip=1.05)
    ratio = torch.cat(log_ratios(now, batch)).clamp(-math.log(1.05), math.log(1.05)).exp()
    expected = surrogate(ratio, batch.advantages_N, 0.2, 0.2)
    torch.testing.assert_close(ppo(now, batch, config), expected)
    batch.behaviour_logprobs_N = batch.behaviour_logprobs_N - 1e4  # exp would overflow
    batch.advantages_N = -batch.advantages_N.abs()
    assert torch.isfinite(ppo(now, batch, StableReinforce())).all()
    assert not torch.isfinite(ppo(now, batch, Grpo())).all()


def test_the_advantage_filter_leaves_out_what_is_far_from_the_mean(generator):
    values = randn(generator, 500)
    values[7] = 50.0
    found = without_outliers(values, 3.0)
    is_far = ((values - values.mean()) / values.std()).abs() > 3
    assert is_far.sum() == 1 and found[7] == 0
    assert torch.equal(found[~is_far], values[~is_far])


def test_group_centred_and_batch_scaled_rewards():
    rewards = torch.tensor([1.0, 3.0, -1.0, -1.0])
    torch.testing.assert_close(group_centered(rewards, 2), torch.tensor([-1.0, 1.0, 0.0, 0.0]))
    expected = torch.tensor([-1.0, 1.0, 0.0, 0.0]) / (rewards.std() + 1e-4)
    torch.testing.assert_close(batch_scaled(rewards, 2), expected)


def test_overlong_penalty_falls_from_0_to_minus_1_over_the_last_share():
    lengths = torch.tensor([1, 80, 90, 100])
    torch.testing.assert_close(overlong_penalty(lengths, 100, 0.2), torch.tensor([0.0, 0.0, -0.5, -1.0]))
    assert not overlong_penalty(lengths, 100, 0.0).any()


def test_a_sequence_left_out_counts_in_no_average():
    kept = torch.tensor([True, False, True, True])
    rows = kept.repeat_interleave(COUNTS)
    for reduction in ("token-mean", "sequence-mean", "sequence-sum", "fixed-length"):
        found = token_weights(COUNTS, reduction, max_tokens=6, is_kept_B=kept)
        assert not found[~rows].any()
        torch.testing.assert_close(found[rows], token_weights(COUNTS[kept], reduction, max_tokens=6))
    torch.testing.assert_close(token_weights(COUNTS, "sequence-sum"), torch.full((N,), 1 / 4))
    torch.testing.assert_close(token_weights(COUNTS, "fixed-length", max_tokens=6), torch.full((N,), 1 / 24))


def test_a_completions_dpo_reward_is_the_sum_mean_or_last_of_its_ratios(generator):
    values = randn(generator, N)
    parts = values.split(COUNTS.tolist())
    for credit, of in (("sum", torch.sum), ("mean", torch.mean), ("last-token", lambda part: part[-1])):
        expected = torch.stack([of(part) for part in parts])
        torch.testing.assert_close(completion_ratios(values, COUNTS, credit), expected)


def prepared(config):
    policy = load_policy(Path(config.policy), config)
    return policy, load_prompts(config.prompts), Estimator(config, policy)


def test_dpo_ratios_are_those_of_the_reward_model_at_the_sampled_tokens(config_of, tiny_reward_model):
    config = config_of("lco-kld-ratio")
    policy, prompts, estimator = prepared(config)
    rollouts = collect(config, policy, prompts, 0)
    batch = estimator.batch(rollouts)
    model = load_reward_model(tiny_reward_model, config)
    with torch.no_grad():
        tuned, kept = (
            action_log_probs(
                each.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT), batch.actions_N
            )
            for each in (model.policy, model.reference)
        )
    torch.testing.assert_close(batch.advantages_N, 0.1 * (tuned - kept), rtol=1e-4, atol=1e-5)
    rloo_config = config_of("rloo")
    rewards = sequence_sums(0.1 * (tuned - kept), batch.num_tokens_B).view(-1, 4)
    expected = (rewards - (rewards.sum(1, keepdim=True) - rewards) / 3).view(-1)
    found = Estimator(rloo_config, policy).batch(rollouts).advantages_N
    torch.testing.assert_close(found, expected.repeat_interleave(batch.num_tokens_B), rtol=1e-3, atol=1e-5)


def test_reinforce_plus_plus_takes_the_kl_still_to_come_off_the_reward_and_z_scores(config_of):
    config = config_of("reinforce-plus-plus")
    policy, prompts, estimator = prepared(config)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():  # away from the start, or the penalty is 0
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    rollouts = collect(config, policy, prompts, 0)
    batch = estimator.batch(rollouts)
    gaps = (batch.behaviour_logprobs_N - batch.reference_logprobs_N).split(batch.num_tokens_B.tolist())
    raw = torch.cat([r.reward - 0.01 * gap.flip(0).cumsum(0).flip(0) for r, gap in zip(rollouts, gaps, strict=True)])
    torch.testing.assert_close(batch.advantages_N, (raw - raw.mean()) / raw.std(), rtol=1e-4, atol=1e-4)


def test_dapo_shapes_the_reward_of_long_completions_and_leaves_truncated_ones_out(config_of):
    config = config_of("dapo")
    policy, prompts, estimator = prepared(config)
    rollouts = collect(config, policy, prompts, 0)
    batch = estimator.batch(rollouts)
    assert batch.is_kept_B.tolist() == [not rollout.is_truncated for rollout in rollouts]
    rewards = torch.tensor([r.reward - max(0.0, (len(r.completion_ids) - 8) / 2) for r in rollouts]).view(-1, 4)
    expected = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    first = batch.num_tokens_B.cumsum(0) - batch.num_tokens_B
    torch.testing.assert_close(batch.advantages_N[first], expected.view(-1), rtol=1e-4, atol=1e-4)


def scripted(monkeypatch, rewards_of):
    """Rewards by prompt and completion number, without a model."""
    sampled = []

    def sample(config, policy, rewarder, prompts, name):
        sampled.append((name, [prompt.id for prompt in prompts]))
        return [
            Rollout(prompt=p, prompt_ids=[1], completion_ids=[1], completion="", is_truncated=False, reward=reward)
            for p in prompts
            for reward in rewards_of(p)
        ]

    monkeypatch.setattr("lco.collection._sampled", sample)
    return sampled


def test_dynamic_sampling_refills_groups_of_equal_raw_rewards_from_untried_prompts(config_of, monkeypatch):
    config = config_of("dapo", group_size=2)
    prompts = [Prompt(id=str(n), text="", reference="") for n in range(20)]
    sampled = scripted(monkeypatch, lambda p: [1.0, 1.0] if int(p.id) % 3 else [1.0, -1.0])
    found = collect(config, None, prompts, 1)
    assert len(found) == config.prompts_per_iteration * 2
    tried = [prompt for _, ids in sampled for prompt in ids]
    assert len(tried) == len(set(tried)), "no prompt is tried twice in an iteration"
    assert 2 <= len(sampled) <= config.algorithm.max_sampling_rounds
    assert [name for name, _ in sampled] == [("rollout", 1), *(("refill", 1, n) for n in range(1, len(sampled)))]
    groups = [found[start].prompt.id for start in range(0, len(found), 2)]
    mixed = [prompt for prompt in tried if not int(prompt) % 3]
    assert groups == (mixed + [prompt for prompt in tried if int(prompt) % 3])[: config.prompts_per_iteration]
    before = list(sampled)
    sampled.clear()
    assert collect(config, None, prompts, 1) == found and sampled == before, "an iteration is a function of its number"


@pytest.mark.parametrize(("num_prompts", "rounds"), [(4, 1), (7, 2), (40, 3)])
def test_dynamic_sampling_ends_with_the_prompts_or_the_rounds(config_of, monkeypatch, num_prompts, rounds):
    config = config_of("dapo", group_size=2)
    sampled = scripted(monkeypatch, lambda p: [1.0, 1.0])
    found = collect(config, None, [Prompt(id=str(n), text="", reference="") for n in range(num_prompts)], 0)
    assert (len(sampled), len(found)) == (rounds, 8)
    assert [r.prompt.id for r in found[::2]] == [str(n) for n in prompt_indices(num_prompts, 4, 0, config.seed)]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "rloo", "advantage": {"name": "sparse"}}, "RLOO is defined"),
        ({"name": "gspo", "advantage": {"name": "dpo", "reward_model": "rm"}}, "GSPO is defined"),
        ({"name": "dapo", "advantage": {"name": "sparse", "estimator": "reward"}}, "DAPO is defined"),
        ({"name": "gkd", "advantage": {"name": "sparse"}}, "advantage"),
        ({"name": "gspo", "token_reduction": "token-mean"}, "token_reduction"),
        ({"name": "dcpo", "advantage": {"name": "sparse", "estimator": "reward"}}, "DCPO is defined"),
        ({"name": "ppo", "advantage": {"name": "gae"}}, "use ppo-critic"),
        ({"name": "reinforce-plus-plus", "advantage": {"name": "gae"}}, "use ppo-critic"),
        ({"name": "ppo-critic", "advantage": {"name": "sparse"}}, "advantage"),
        ({"name": "vc-ppo", "advantage": {"name": "gae"}}, "pretrains its critic"),
        ({"name": "grpo", "ratio_cap": 1.1}, "ratio_cap: must exceed"),
        ({"name": "ppo", "advantage": TOKEN_RATIO | {"estimator": "leave-one-out"}}, "estimator"),
    ],
    ids=str,
)
def test_a_combination_that_a_method_does_not_know_is_refused_by_name(document, field):
    with pytest.raises(ValidationError, match=field):
        TypeAdapter(Algorithm).validate_python(document)
