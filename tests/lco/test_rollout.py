"""Sampling, masks and batches: what a completion is must not depend on who stands beside it."""

import dataclasses
import itertools

import pytest
import torch
from safetensors.torch import load, save

from lco.config import Sampling
from lco.rollout import Batch, draw, padded, sample, sequence_tensors
from lco.seeds import derived_seed, uniforms
from tests.lco.cases import randn, token_batch

PROMPTS = ["7+5=", "1+2+3+4=", "9+9+9=", "8=", "1+1+1+1+1+1=", "4+4=", "2+7+1=", "6+6+6+6="]
GREEDY = Sampling(temperature=0.0, max_tokens=12)
SAMPLED = Sampling(max_tokens=12)
NUCLEUS = Sampling(temperature=0.6, top_p=0.95, max_tokens=12)


def encoded(policy):
    return [policy.encode_prompt(text) for text in PROMPTS]


def seeds_of(texts):
    return [derived_seed("test", text) for text in texts]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, NUCLEUS], ids=["greedy", "sampled", "nucleus"])
def test_order_and_company_of_prompts_decide_nothing(tiny_policy, sampling):
    prompts, seeds = encoded(tiny_policy), seeds_of(PROMPTS)
    together = sample(tiny_policy, prompts, seeds, sampling)
    assert together == [sample(tiny_policy, [p], [s], sampling)[0] for p, s in zip(prompts, seeds, strict=True)]
    for batch_size in (1, 3, 5):
        parts = sampling.model_copy(update={"batch_size": batch_size})
        assert sample(tiny_policy, prompts, seeds, parts) == together
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    assert sample(tiny_policy, [prompts[i] for i in order], [seeds[i] for i in order], sampling) == [
        together[i] for i in order
    ]
    repeated = sample(tiny_policy, prompts * 2, seeds * 2, sampling)
    assert repeated == together * 2


def test_greedy_takes_the_most_probable_token_at_every_position(tiny_policy):
    for prompt, completion in zip(
        encoded(tiny_policy), sample(tiny_policy, encoded(tiny_policy), [0] * 8, GREEDY), strict=True
    ):
        ids, attention, mask, actions = sequence_tensors([prompt], [completion], torch.device("cpu"))
        logits = tiny_policy.token_logits(ids, attention, mask)
        assert logits.argmax(-1).tolist() == actions.tolist() == completion


def test_sampled_tokens_are_the_inverse_cumulative_distribution_of_their_uniforms(tiny_policy):
    completions = sample(tiny_policy, encoded(tiny_policy), seeds_of(PROMPTS), SAMPLED)
    for prompt, completion, seed in zip(encoded(tiny_policy), completions, seeds_of(PROMPTS), strict=True):
        ids, attention, mask, _ = sequence_tensors([prompt], [completion], torch.device("cpu"))
        cumulative = tiny_policy.token_logits(ids, attention, mask).softmax(-1, dtype=torch.float64).cumsum(-1)
        numbers = torch.from_numpy(uniforms([seed], len(completion)))[0]
        for position, token in enumerate(completion):
            below = cumulative[position, token - 1] if token else 0.0
            assert below - 1e-5 <= numbers[position] < cumulative[position, token] + 1e-5


def test_a_completion_ends_with_its_end_of_sequence_token_or_at_the_limit(tiny_policy):
    prompts = [tiny_policy.encode_prompt("1+2=")] * 200
    completions = sample(tiny_policy, prompts, list(range(200)), SAMPLED)
    ended = [ids for ids in completions if ids[-1] == tiny_policy.eos_id]
    truncated = [ids for ids in completions if ids[-1] != tiny_policy.eos_id]
    assert ended and truncated, "the case must hold both"
    assert all(tiny_policy.eos_id not in ids[:-1] for ids in completions)
    assert all(len(ids) == SAMPLED.max_tokens for ids in truncated)
    assert all(1 <= len(ids) <= SAMPLED.max_tokens for ids in ended)


def test_an_empty_completion_is_its_end_token_alone_and_that_is_trained(tiny_policy):
    assert tiny_policy.encode_completion("") == [tiny_policy.eos_id]
    assert tiny_policy.decode([tiny_policy.eos_id]) == ""
    *tensors, actions = sequence_tensors([[5], [6, 7]], [[tiny_policy.eos_id]] * 2, torch.device("cpu"))
    assert actions.tolist() == [tiny_policy.eos_id] * 2
    assert tensors[2].tolist() == [[True, False, False], [False, True, False]]
    assert tiny_policy.token_logits(*tensors).shape == (2, tiny_policy.vocab_size)


def test_a_prompt_that_does_not_fit_is_refused(tiny_policy):
    prompt = tiny_policy.encode_prompt("1" * 60)
    with pytest.raises(
        ValueError, match="max_tokens: a prompt of 60 tokens and 5 more exceed the model's 64 positions"
    ):
        sample(tiny_policy, [prompt], [0], Sampling(max_tokens=5))
    assert len(sample(tiny_policy, [prompt], [0], Sampling(max_tokens=4))) == 1


def test_sampling_leaves_no_gradient_and_no_change(tiny_policy):
    before = [parameter.detach().clone() for parameter in tiny_policy.model.parameters()]
    sample(tiny_policy, encoded(tiny_policy), [0] * 8, SAMPLED)
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in tiny_policy.model.parameters())


# --- draw


def drawn(logits, temperature=1.0, top_p=1.0, count=20_000):
    numbers = torch.from_numpy(uniforms([12345], count))[0]
    return draw(logits.expand(count, -1), numbers, temperature, top_p)


def chi_square(tokens, probs):
    counts = torch.bincount(tokens, minlength=len(probs)).double()
    possible = probs > 0
    assert counts[~possible].sum() == 0
    expected = probs[possible] * len(tokens)
    return float(((counts[possible] - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_draws_follow_the_tempered_distribution(generator, temperature):
    logits = randn(generator, 1, 20)
    probs = (logits[0] / temperature).softmax(-1)
    assert chi_square(drawn(logits, temperature), probs) < 50.8  # 99.99 % point, 19 degrees


@pytest.mark.parametrize("top_p", [0.3, 0.5, 0.9, 0.99])
def test_top_p_draws_from_the_smallest_set_with_that_much_probability(generator, top_p):
    logits = randn(generator, 1, 20)
    probs = logits[0].softmax(-1)
    order = probs.argsort(descending=True)
    nucleus = order[: int((probs[order].cumsum(0) < top_p).sum()) + 1]
    assert probs[nucleus].sum() >= top_p > probs[nucleus[:-1]].sum()
    kept = torch.zeros_like(probs)
    kept[nucleus] = probs[nucleus] / probs[nucleus].sum()
    tokens = drawn(logits, top_p=top_p)
    assert set(tokens.tolist()) <= set(nucleus.tolist())
    assert chi_square(tokens, kept) < 50.8


def test_the_most_probable_token_is_always_in_the_nucleus():
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    assert set(drawn(logits, top_p=1e-9, count=100).tolist()) == {1}


def test_temperature_0_is_the_most_probable_token_whatever_the_number():
    logits = torch.tensor([[0.0, 5.0, 1.0], [9.0, 5.0, 1.0]])
    assert draw(logits, torch.tensor([0.999, 0.0]), 0.0, 0.5).tolist() == [1, 0]


@pytest.mark.parametrize("top_p", [0.5, 0.9, 1.0])
def test_the_ends_of_the_unit_interval_draw_tokens_that_have_probability(top_p):
    logits = torch.tensor([[-1e4, 1.0, 1.0, -1e4], [-1e4, -1e4, 3.0, -1e4], [2.0, -1e4, -1e4, -1e4]])
    for number in (0.0, 2.0**-53, 0.5, 1 - 2.0**-53):
        tokens = draw(logits, torch.full((3,), number, dtype=torch.float64), 1.0, top_p).tolist()
        assert tokens[0] in (1, 2) and tokens[1:] == [2, 0]


# --- masks and batches


def test_masks_come_from_lengths_even_where_a_sampled_token_equals_the_padding(tiny_policy):
    prompts, completions = [[5, 0, 6], [0]], [[0, 7, 0], [0, 0]]
    ids, attention, mask, actions = sequence_tensors(prompts, completions, torch.device("cpu"))
    assert attention.tolist() == [[1] * 6, [1] * 3 + [0] * 3]
    assert mask.tolist() == [[False, False, True, True, True, False], [True, True, False, False, False, False]]
    assert actions.tolist() == [0, 7, 0, 0, 0]
    together = tiny_policy.token_logits(ids, attention, mask)
    alone = [
        tiny_policy.token_logits(*sequence_tensors([p], [c], torch.device("cpu"))[:3])
        for p, c in zip(prompts, completions, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_the_logits_at_a_masked_position_are_those_of_the_token_that_follows(tiny_policy):
    ids, attention, mask, actions = sequence_tensors([[5, 6, 7]], [[8, 9, 1]], torch.device("cpu"))
    full = tiny_policy.model(input_ids=ids, attention_mask=attention).logits[0]
    torch.testing.assert_close(tiny_policy.token_logits(ids, attention, mask), full[2:5, : tiny_policy.vocab_size])
    assert actions.tolist() == ids[0, 3:].tolist()


def test_padding_is_on_the_side_asked_for():
    for side, rows in (("right", [[1, 2, 3], [4, 9, 9]]), ("left", [[1, 2, 3], [9, 9, 4]])):
        ids, mask = padded([[1, 2, 3], [4]], 9, side)
        assert ids.tolist() == rows
        assert mask.tolist() == [[int(token != 9) for token in row] for row in rows]


@pytest.fixture
def batch(generator):
    """Four sequences of 3, 1, 2 and 4 trained tokens with a support of 5 entries."""
    counts = torch.tensor([3, 1, 2, 4])
    made = token_batch(
        randn(generator, 10, 7), randn(generator, 10, 7), torch.arange(10) % 7, ids_NK=torch.arange(5).expand(10, 5)
    )
    prompts = [[1, 2], [3, 4, 5, 6], [7], [8, 9]]
    completions = [list(range(20 + 10 * row, 20 + 10 * row + int(count))) for row, count in enumerate(counts)]
    ids, attention, mask, actions = sequence_tensors(prompts, completions, torch.device("cpu"))
    return dataclasses.replace(
        made, input_ids_BT=ids, attention_mask_BT=attention, mask_BT=mask, num_tokens_B=counts, actions_N=actions
    )


def test_selecting_sequences_takes_their_tokens_in_their_order(batch):
    for order in itertools.permutations(range(4), 3):
        some = batch.select(torch.tensor(order))
        rows = [list(range(*span)) for span in ((0, 3), (3, 4), (4, 6), (6, 10))]
        tokens = [row for index in order for row in rows[index]]
        assert some.actions_N.tolist() == batch.actions_N[tokens].tolist()
        assert torch.equal(some.support.advantages_NK, batch.support.advantages_NK[tokens])
        assert torch.equal(some.behaviour_logprobs_N, batch.behaviour_logprobs_N[tokens])
        assert some.input_ids_BT.shape[1] == some.attention_mask_BT.sum(1).max()
        masked = torch.cat([some.input_ids_BT[:, 1:], torch.zeros(3, 1, dtype=torch.long)], 1)[some.mask_BT]
        assert masked.tolist() == some.actions_N.tolist()


def test_a_batch_survives_a_safetensors_file(batch):
    for original in (batch, dataclasses.replace(batch, support=None)):
        restored = Batch.from_tensors(load(save(original.tensors())))
        assert original.tensors().keys() == restored.tensors().keys()
        for name, tensor in original.tensors().items():
            assert torch.equal(tensor, restored.tensors()[name]) and tensor.dtype == restored.tensors()[name].dtype
        assert (restored.support is None) == (original.support is None)
