"""Advantage estimators (Eqs. 11-13) and their normalisation, in float64 with V = 7."""

import pytest
import torch

from lco.advantages import (
    dense_dpo,
    dense_logprob,
    group_normalized,
    leave_one_out,
    log_mass_outside,
    normalize,
    reference_kl_advantages,
    shift_and_divisor,
    sparse,
    sparse_fill,
    support_moments,
    top_k_support,
    z_scored,
)
from lco.targets import optimal_logits
from tests.lco.cases import V, randn


def test_eq11_sparse_advantage_is_zero_off_the_sampled_token(generator):
    values = randn(generator, 2, 4)
    token_ids = torch.tensor([[0, 3, 6, 2], [1, 1, 5, 0]])
    found = sparse(token_ids, values, V)
    assert found.shape == (2, 4, V) and found.dtype == values.dtype
    for row in range(2):
        for step in range(4):
            expected = [0.0] * V
            expected[token_ids[row, step]] = values[row, step].item()
            assert found[row, step].tolist() == expected


def test_zero_fill_leaves_the_sampled_advantage_as_it_is(generator):
    values = randn(generator, 4)
    sampled, others = sparse_fill(values, randn(generator, 4), "zero")
    assert torch.equal(sampled, values)
    assert torch.equal(others, torch.zeros(4, dtype=torch.float64))


def test_zero_mean_fill_has_no_mean_under_the_behaviour_policy(generator):
    logits, values = randn(generator, 50, V), randn(generator, 50)
    actions = torch.randint(V, (50,), generator=generator)
    probs = logits.softmax(-1)
    probs_of_sampled = probs.gather(1, actions[:, None])[:, 0]
    sampled, others = sparse_fill(values, probs_of_sampled.log(), "zero-mean")
    torch.testing.assert_close(sampled, values * (1 - probs_of_sampled))
    found = others[:, None].expand(50, V).scatter(1, actions[:, None], sampled[:, None])
    is_free = 1 - probs_of_sampled >= 0.1  # the authors' floor binds elsewhere
    mean = (probs * found).sum(-1)
    torch.testing.assert_close(mean[is_free], torch.zeros_like(mean[is_free]), atol=1e-12, rtol=0)
    assert (mean[~is_free].abs() > 0).all()


def test_zero_mean_fill_stays_finite_where_the_sampled_token_has_all_the_mass():
    logprobs = torch.tensor([[60.0] + [0.0] * (V - 1)], dtype=torch.float64).log_softmax(-1)[:, 0]
    for found in sparse_fill(torch.tensor([2.0], dtype=torch.float64), logprobs, "zero-mean"):
        assert torch.isfinite(found).all()
        assert found.abs().max() < 1e-10


def test_eq12_logprob_advantage_is_the_logit_less_its_soft_value(generator):
    logits = randn(generator, 9, V)
    q, v = logits, logits.exp().sum(-1, keepdim=True).log()
    torch.testing.assert_close(dense_logprob(logits), q - v)
    soft_mean = dense_logprob(logits).logsumexp(-1)
    torch.testing.assert_close(soft_mean, torch.zeros(9, dtype=torch.float64), atol=1e-12, rtol=0)


def test_eq13_dpo_advantage_is_the_scaled_log_ratio_and_has_no_soft_mean(generator):
    dpo, reference = randn(generator, 9, V), randn(generator, 9, V)
    found = dense_dpo(dpo, reference, 0.1)
    torch.testing.assert_close(found, 0.1 * (dpo.softmax(-1) / reference.softmax(-1)).log())
    soft_mean = (reference.log_softmax(-1) + found / 0.1).logsumexp(-1)
    torch.testing.assert_close(soft_mean, torch.zeros(9, dtype=torch.float64), atol=1e-12, rtol=0)


def test_reference_pull_is_the_weighted_log_ratio_to_the_start_and_vanishes_there(generator):
    old, initial = randn(generator, 9, V), randn(generator, 9, V)
    expected = -0.05 * (old.softmax(-1) / initial.softmax(-1)).log()
    torch.testing.assert_close(reference_kl_advantages(old, initial, 0.05), expected)
    assert torch.equal(reference_kl_advantages(old, old, 0.05), torch.zeros(9, V, dtype=torch.float64))


def test_group_normalised_advantages_are_z_scores_within_a_group():
    rewards = torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    found = group_normalized(rewards, 4).view(2, 4)
    for group, expected in zip(rewards.view(2, 4), found, strict=True):
        torch.testing.assert_close(expected, (group - group.mean()) / (group.std() + 1e-4))


def test_an_all_equal_group_gives_no_advantage():
    rewards = torch.full((8,), 0.1)
    for found in (group_normalized(rewards, 4), leave_one_out(rewards, 4), z_scored(rewards)):
        torch.testing.assert_close(found, torch.zeros(8), atol=1e-4, rtol=0)


def test_leave_one_out_subtracts_the_mean_of_the_others():
    found = leave_one_out(torch.tensor([1.0, 0.0, 0.0, 5.0, 1.0, 3.0]), 3)
    torch.testing.assert_close(found, torch.tensor([1.0, -0.5, -0.5, 3.0, -3.0, 0.0]))


def test_z_scores_have_mean_0_and_standard_deviation_1_and_do_not_divide_by_0(generator):
    found = z_scored(randn(generator, 100, scale=9) + 4)
    torch.testing.assert_close(torch.stack([found.mean(), found.std()]), torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert z_scored(torch.tensor([3.0])).tolist() == [0.0]
    assert z_scored(torch.tensor([3.0, 3.0])).tolist() == [0.0, 0.0]


def test_top_k_support_holds_the_best_of_each_model_and_the_sampled_token_once(generator):
    first, second = randn(generator, 30, V), randn(generator, 30, V)
    actions = torch.randint(V, (30,), generator=generator)
    ids, valid = top_k_support([first, second], 2, actions)
    for row in range(30):
        known = ids[row][valid[row]].tolist()
        assert len(set(known)) == len(known)
        best = {int(i) for logits in (first, second) for i in logits[row].topk(2).indices}
        assert set(known) == best | {int(actions[row])}


def test_top_k_larger_than_the_vocabulary_is_the_vocabulary(generator):
    ids, valid = top_k_support([randn(generator, 3, V)], 64, torch.tensor([0, 1, 2]))
    assert all(ids[row][valid[row]].tolist() == list(range(V)) for row in range(3))


def test_mass_outside_is_what_the_support_leaves(generator):
    log_probs = randn(generator, 5, V).log_softmax(-1)
    ids, _ = top_k_support([log_probs], 3, torch.tensor([6, 6, 6, 6, 6]))
    inside = torch.zeros(5, V, dtype=torch.bool).scatter(1, ids, True)
    torch.testing.assert_close(log_mass_outside(log_probs, ids).exp(), log_probs.exp().masked_fill(inside, 0).sum(-1))
    everything = torch.arange(V).expand(5, V)
    assert (log_mass_outside(log_probs, everything) == -torch.inf).all()


def test_moments_ignore_repeated_entries():
    values = torch.tensor([[1.0, 2.0, 2.0, 6.0]])
    mean, deviation = support_moments(values, torch.tensor([[True, True, False, True]]))
    assert mean.item() == 3.0
    assert deviation.item() == pytest.approx(torch.tensor([1.0, 2.0, 6.0]).std().item())
    assert support_moments(values[:, :1], None)[1].item() == 0.0


def test_per_step_normalisation_gives_every_token_mean_0_and_deviation_1(generator):
    values = randn(generator, 20, V) * torch.logspace(-4, 4, 20, dtype=torch.float64)[:, None] + 3
    found = normalize(values)
    torch.testing.assert_close(found.mean(-1), torch.zeros(20, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.std(-1), torch.ones(20, dtype=torch.float64))


def test_scale_without_centre_divides_only(generator):
    values = randn(generator, 20, V) + 3
    torch.testing.assert_close(normalize(values, center=False), values / values.std(-1, keepdim=True))
    torch.testing.assert_close(normalize(values, scale="none"), values - values.mean(-1, keepdim=True))
    assert torch.equal(normalize(values, center=False, scale="none"), values)


def test_global_scale_is_one_number_for_all_tokens(generator):
    values = randn(generator, 20, V) * torch.linspace(0.1, 3, 20, dtype=torch.float64)[:, None]
    centred = values - values.mean(-1, keepdim=True)
    torch.testing.assert_close(normalize(values, scale="global"), centred / values.var(-1).mean().sqrt())


def test_std_floor_keeps_indifferent_tokens_small(generator):
    values = randn(generator, 20, V, scale=1e-3)
    assert normalize(values, std_floor=0.1).abs().max() < 0.05
    assert normalize(values).abs().max() > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["per-step", "global"])
@pytest.mark.parametrize("center", [False, True])
def test_a_flat_token_keeps_no_advantage_and_makes_no_nan(generator, scale, center, dtype):
    constants = torch.cat([torch.zeros(1), torch.rand(200, generator=generator) * 10]).to(dtype)
    found = normalize(constants[:, None].expand(-1, V).contiguous(), scale=scale, center=center)
    assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("scale", ["none", "per-step", "global"])
def test_normalisation_on_a_support_is_that_of_its_entries_and_0_outside(generator, scale):
    values = randn(generator, 3, 5, V)
    support = torch.rand(3, 5, V, generator=generator) < 0.6
    support[..., :2] = True
    support[2, 4] = False  # padding: no entry at all
    found = normalize(values, support, scale=scale)
    assert (found[~support] == 0).all()
    stds = [
        values[row, step][support[row, step]].std() for row in range(3) for step in range(5) if (row, step) != (2, 4)
    ]
    overall = torch.stack(stds).square().mean().sqrt()
    for row in range(3):
        for step in range(5):
            known = values[row, step][support[row, step]]
            divisor = {"none": 1.0, "per-step": known.std(), "global": overall}[scale] if len(known) else 1.0
            expected = (known - known.mean()) / divisor if len(known) else known
            torch.testing.assert_close(found[row, step][support[row, step]], expected)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="scale: 'batch' is not"):
        normalize(torch.zeros(2, V), scale="batch")


@pytest.mark.parametrize("function", [dense_logprob, lambda z: dense_dpo(z, 0.5 * z, 0.1)], ids=["logprob", "dpo"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_log_ratios_of_narrow_logits_are_taken_in_float32(generator, function, dtype):
    narrow = randn(generator, 2, 3, 500, scale=5).to(dtype)
    found = function(narrow)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, function(narrow.double()).float(), rtol=1e-4, atol=1e-5)


def test_a_step_that_nothing_divides_loses_even_what_lies_outside_its_support():
    values = torch.full((1, 3), 0.4)
    shift, divisor = shift_and_divisor(values, None, center=False, scale="per-step", std_floor=0.0)
    assert ((torch.tensor([[7.0]]) - shift) / divisor).item() == 0.0


def test_z_scoring_turns_noise_into_a_moved_target(generator):
    """A reward model that is indifferent (sd 1e-3) at a step where the policy is 98 % sure, beta 0.1."""
    policy = torch.tensor([0.98, 0.01, 0.005, 0.003, 0.002], dtype=torch.float64).log()
    noise = randn(generator, 4000, 5, scale=1e-3)

    def share_moved(advantages):
        return (optimal_logits(policy, advantages, 0.1).argmax(-1) != 0).double().mean().item()

    assert share_moved(normalize(noise)) == pytest.approx(0.68, abs=0.04)
    assert share_moved(normalize(noise, scale="none")) == share_moved(normalize(noise, std_floor=0.1)) == 0.0


def test_an_advantage_of_one_column_is_no_mask_of_the_vocabulary(generator):
    logits, values = randn(generator, 4, V), torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=torch.float64)
    wide = sparse(torch.tensor([0, 1, 2, 3]), values, V)
    assert logits[wide > 0].shape == (2,)
    with pytest.raises(IndexError):
        logits[values[:, None] > 0]
