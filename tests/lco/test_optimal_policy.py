"""Decoding from pi* (Eq. 6) and from a mixture of two models: what is drawn, and from which distribution."""

import json
from contextlib import closing

import pytest
import torch

from evaluation.config import EvalConfig
from evaluation.run import evaluate
from lco.config import OptimalPolicySource, Sampling, StageConfig
from lco.decoding import MixedPolicy
from lco.log_probs import mixture_log_probs
from lco.optimal_policy import load_decodable
from lco.policy import load_policy
from lco.rollout import sample, sequence_tensors
from lco.stage import Stage
from store.specs import references
from tests.lco.cases import V, randn

CPU = StageConfig(device="cpu")
PROMPTS = ["1+2=", "9+4+7=", "3+3=", "12+5="] * 5
SAMPLING = Sampling(max_tokens=12)


def drawn(policy, sampling=SAMPLING):
    ids = [policy.encode_prompt(text) for text in PROMPTS]
    return sample(policy, ids, list(range(len(ids))), sampling)


def source(tiny_model, tiny_reward_model, **changes):
    return OptimalPolicySource(policy=str(tiny_model), reward_model=str(tiny_reward_model), **changes)


@pytest.fixture
def moved_model(tiny_policy, tmp_path):
    """A policy that is neither the reward model nor its reference."""
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in tiny_policy.model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    tiny_policy.save(tmp_path / "moved")
    return tmp_path / "moved"


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(max_tokens=12, temperature=0.6, top_p=0.95)], ids=str)
def test_with_the_whole_pull_and_the_reward_models_beta_pi_star_draws_the_tokens_of_pi_dpo(
    moved_model, tiny_reward_model, sampling
):
    optimal = load_decodable(source(moved_model, tiny_reward_model, reference_kl=1.0), CPU)
    expected = drawn(load_policy(tiny_reward_model, CPU), sampling)
    assert drawn(optimal, sampling) == expected
    assert drawn(load_policy(moved_model, CPU), sampling) != expected


def test_a_policy_that_is_the_reference_needs_no_pull_to_draw_the_tokens_of_pi_dpo(tiny_model, tiny_reward_model):
    optimal = load_decodable(source(tiny_model, tiny_reward_model), CPU)
    assert drawn(optimal) == drawn(load_policy(tiny_reward_model, CPU))


def test_a_large_beta_leaves_the_policy_as_it_is(moved_model, tiny_reward_model):
    optimal = load_decodable(source(moved_model, tiny_reward_model, beta=1e6), CPU)
    assert drawn(optimal) == drawn(load_policy(moved_model, CPU))


def test_eq6_the_decoded_distribution_is_the_old_one_tilted_by_the_advantage(
    moved_model, tiny_model, tiny_reward_model
):
    optimal = load_decodable(source(moved_model, tiny_reward_model, beta=0.3, reference_kl=0.5), CPU)
    prompts, completions = [[3, 4], [5, 6, 7]], [[4, 5, 1], [8, 1]]
    ids, attention, mask, _ = sequence_tensors(prompts, completions, torch.device("cpu"))
    with torch.no_grad():
        found = optimal.token_logits(ids, attention, mask).softmax(-1)
        old, dpo, reference = (
            load_policy(path, CPU).token_logits(ids, attention, mask).softmax(-1)
            for path in (moved_model, tiny_reward_model, tiny_model)
        )
    tilted = old * torch.exp((0.1 * (dpo / reference).log() - 0.05 * (old / reference).log()) / 0.3)
    torch.testing.assert_close(found, tilted / tilted.sum(-1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_decoding_over_the_caches_is_decoding_from_whole_sequences(moved_model, tiny_reward_model):
    optimal = load_decodable(source(moved_model, tiny_reward_model), CPU)
    greedy = Sampling(max_tokens=8, temperature=0.0)
    for text, completion in zip(PROMPTS[:4], drawn(optimal, greedy)[:4], strict=True):
        prompt = optimal.encode_prompt(text)
        ids, attention, mask, actions = sequence_tensors([prompt], [completion], torch.device("cpu"))
        with torch.no_grad():
            assert torch.equal(optimal.token_logits(ids, attention, mask).argmax(-1), actions)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_mixture_is_that_of_the_probabilities(generator, alpha):
    own, teacher = (randn(generator, 5, V, scale=3).log_softmax(-1) for _ in range(2))
    expected = alpha * teacher.exp() + (1 - alpha) * own.exp()
    torch.testing.assert_close(mixture_log_probs(own, teacher, alpha).exp(), expected)


def test_a_mixture_with_the_teacher_alone_draws_the_tokens_of_the_teacher(moved_model, tiny_model):
    own, teacher = (load_policy(path, CPU) for path in (moved_model, tiny_model))
    mixed = MixedPolicy(model=own.model, tokenizer=own.tokenizer, others=(teacher,), alpha=1.0)
    assert drawn(mixed) == drawn(teacher)
    half = MixedPolicy(model=own.model, tokenizer=own.tokenizer, others=(teacher,), alpha=0.5)
    assert drawn(half) not in (drawn(own), drawn(teacher))


def test_a_combination_is_not_saved(moved_model, tiny_reward_model, tmp_path):
    optimal = load_decodable(source(moved_model, tiny_reward_model), CPU)
    with pytest.raises(ValueError, match="cannot be saved as one model"):
        optimal.save(tmp_path / "saved")


def test_pi_star_is_evaluated_like_any_policy(tiny_model, tiny_reward_model, tmp_path):
    """At lambda 1 its completions are those of the reward model's own evaluation."""
    texts = []
    named = {"policy": str(tiny_model), "reward_model": str(tiny_reward_model), "reference_kl": 1.0}
    for name, policy in (("optimal", named), ("dpo", str(tiny_reward_model))):
        document = {
            "policy": policy,
            "benchmarks": [{"name": "sums", "problems": {"split": "test", "num_problems": 6}, "max_tokens": 8}],
            "decodings": ["t1.0"],
            "eval_seeds": [0],
            "device": "cpu",
        }
        config = EvalConfig.model_validate_json(json.dumps(document))
        with closing(Stage(tmp_path / name, [])) as stage:
            evaluate(config, stage)
        lines = (tmp_path / name / "completions.jsonl").read_text().splitlines()
        texts.append([json.loads(line)["completion"] for line in lines])
    assert texts[0] == texts[1] and len(texts[0]) == 6


def test_the_platform_finds_both_inputs_of_pi_star():
    document = {
        "policy": {"policy": "job:sft", "reward_model": "job:dpo"},
        "benchmarks": [{"name": "sums"}],
    }
    found = list(references(EvalConfig.model_validate_json(json.dumps(document))))
    assert [(each.pointer, each.source) for each in found] == [
        (("policy", "policy"), "model"),
        (("policy", "reward_model"), "reward-model"),
    ]
