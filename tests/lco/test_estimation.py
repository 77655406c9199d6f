"""Rollouts -> a batch: what the frozen models say at the sampled ids, and the targets that follow."""

import shutil
from pathlib import Path

import pytest
import torch

from lco.algorithms import TrainConfig
from lco.config import StageConfig
from lco.estimation import Estimator
from lco.initial import initial_policy
from lco.log_probs import kl_divergence
from lco.losses import LOSSES
from lco.policy import load_policy
from lco.prompts import Prompt
from lco.rollout import Rollout, sequence_tensors
from lco.targets import optimal_log_probs, target_log_probs
from tests.lco.conftest import TINY

CPU = torch.device("cpu")
TEXTS = [("1+2=", "1+2=3"), ("4+4=", "4+4=9"), ("7+1+2=", "7+1=8;8+2=10"), ("9=", "9")]


def rollouts_of(policy, rewards=(1.0, -1.0, 1.0, -1.0)):
    return [
        Rollout(
            prompt=Prompt(id=text, text=text, reference=""),
            prompt_ids=policy.encode_prompt(text),
            completion_ids=policy.encode_completion(completion),
            completion=completion,
            is_truncated=False,
            reward=reward,
        )
        for (text, completion), reward in zip(TEXTS, rewards, strict=True)
    ]


@pytest.fixture
def policy(tiny_model):
    return load_policy(tiny_model, StageConfig(device="cpu"))


@pytest.fixture
def other(tiny_policy):
    """A policy that has moved away from its start."""
    noise = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in tiny_policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    return tiny_policy


@pytest.fixture
def estimator(tiny_model, tiny_reward_model):
    """Makes an estimator for an algorithm and the policy that sampled."""

    def make(algorithm, policy, **changes):
        advantage = algorithm.get("advantage", {"name": "dpo"})
        models = {"dpo": str(tiny_reward_model), "logprob": str(tiny_reward_model)}
        if advantage["name"] in models:
            advantage = {"reward_model": models[advantage["name"]]} | advantage
        document = {
            "policy": str(tiny_model),
            "prompts": {"name": "sums"},
            "device": "cpu",
            "group_size": 2,
            "micro_batch_size": 3,
        }
        return Estimator(
            TrainConfig.model_validate(document | {"algorithm": algorithm | {"advantage": advantage}} | changes), policy
        )

    return make


def logits_of(policy, rollouts):
    tensors = sequence_tensors([r.prompt_ids for r in rollouts], [r.completion_ids for r in rollouts], CPU)
    with torch.no_grad():
        return policy.token_logits(*tensors[:3]), tensors[3]


def test_full_reference_pull_makes_the_dpo_policy_itself_the_target(estimator, other, tiny_reward_model):
    """With lambda = 1, pi_ref = pi_0 and beta = beta_dpo, LCO-KLD is on-policy forward-KL distillation of pi_dpo."""
    made = estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reference_kl": 1.0}}, other)
    rollouts = rollouts_of(other)
    batch = made.batch(rollouts)
    now, _ = logits_of(other, rollouts)
    teacher, _ = logits_of(load_policy(tiny_reward_model, StageConfig(device="cpu")), rollouts)
    target = target_log_probs(now.log_softmax(-1), batch, made.algorithm)
    torch.testing.assert_close(target, teacher.log_softmax(-1), rtol=1e-4, atol=1e-4)
    loss = LOSSES[type(made.algorithm)](now, batch, made.algorithm)
    torch.testing.assert_close(loss, kl_divergence(teacher.log_softmax(-1), now.log_softmax(-1)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("pull", [0.0, 0.5, 1.0, 1.5])
def test_dense_advantages_are_the_log_ratio_less_the_pull(estimator, other, policy, tiny_reward_model, pull):
    made = estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reference_kl": pull}}, other)
    rollouts = rollouts_of(other)
    batch = made.batch(rollouts)
    dpo, start, old = (logits_of(p, rollouts)[0].log_softmax(-1) for p in (made.scorer.reward_model, policy, other))
    expected = 0.1 * (dpo - start) - pull * 0.1 * (old - start)
    torch.testing.assert_close(batch.support.advantages_NK, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        batch.advantages_N, expected.gather(1, batch.actions_N[:, None])[:, 0], rtol=1e-4, atol=1e-5
    )
    assert made.algorithm.beta == made.scorer.beta_dpo == 0.1


def test_at_the_start_the_pull_is_nothing(estimator, policy):
    rollouts = rollouts_of(policy)
    batches = [
        estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reference_kl": pull}}, policy).batch(rollouts)
        for pull in (0.0, 2.0)
    ]
    torch.testing.assert_close(batches[0].support.advantages_NK, batches[1].support.advantages_NK, rtol=0, atol=1e-6)


def test_the_reference_serves_as_the_start_where_they_are_one_model(estimator, policy):
    made = estimator({"name": "lco-kld"}, policy)
    assert made.scorer.initial is made.scorer.reference is not None
    assert (
        estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reference_kl": 0.0}}, policy).scorer.initial is None
    )


def test_logprob_advantages_are_the_models_log_probabilities(estimator, other):
    made = estimator({"name": "lco-kld", "beta": 1.0, "advantage": {"name": "logprob"}}, other)
    rollouts = rollouts_of(other)
    batch = made.batch(rollouts)
    torch.testing.assert_close(
        batch.support.advantages_NK, logits_of(made.scorer.reward_model, rollouts)[0].log_softmax(-1)
    )


def test_behaviour_log_probabilities_are_those_of_the_sampled_ids(estimator, other):
    rollouts = rollouts_of(other)
    batch = estimator({"name": "ppo"}, other).batch(rollouts)
    logits, actions = logits_of(other, rollouts)
    torch.testing.assert_close(batch.behaviour_logprobs_N, logits.log_softmax(-1).gather(1, actions[:, None])[:, 0])
    assert torch.equal(batch.actions_N, actions)
    assert batch.num_tokens_B.tolist() == [len(rollout.completion_ids) for rollout in rollouts]
    assert batch.support is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reward", [1.0, -1.0, 3.0, 1.0]),
        ("group-normalized", [2**-0.5, -(2**-0.5), 2**-0.5, -(2**-0.5)]),
        ("leave-one-out", [2.0, -2.0, 2.0, -2.0]),
        ("batch-normalized", [0.0, -1.224745, 1.224745, 0.0]),
    ],
)
def test_sparse_advantages_are_those_of_the_completion_on_each_of_its_tokens(estimator, other, name, expected):
    algorithm = {"name": "ppo", "advantage": {"name": "sparse", "estimator": name}}
    batch = estimator(algorithm, other).batch(rollouts_of(other, rewards=(1.0, -1.0, 3.0, 1.0)))
    counts = batch.num_tokens_B
    torch.testing.assert_close(
        batch.advantages_N, torch.tensor(expected).repeat_interleave(counts), rtol=1e-3, atol=1e-6
    )


def test_whitening_z_scores_the_tokens_of_the_iteration(estimator, other):
    batch = estimator({"name": "ppo", "whiten": True, "advantage": {"name": "dpo"}}, other).batch(rollouts_of(other))
    torch.testing.assert_close(batch.advantages_N.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.advantages_N.std(), torch.tensor(1.0))


def test_all_equal_rewards_give_no_advantage_and_no_nan(estimator, other):
    for name in ("group-normalized", "leave-one-out", "batch-normalized"):
        algorithm = {"name": "ppo", "whiten": True, "advantage": {"name": "sparse", "estimator": name}}
        batch = estimator(algorithm, other).batch(rollouts_of(other, rewards=(0.1,) * 4))
        assert torch.equal(batch.advantages_N, torch.zeros_like(batch.advantages_N)), name


@pytest.mark.parametrize("fill", ["zero", "zero-mean"])
def test_a_sparse_advantage_is_the_same_on_a_support_and_on_the_vocabulary(estimator, other, fill):
    common = {
        "name": "lco-kld",
        "beta": 0.5,
        "sparse_fill": fill,
        "advantage": {"name": "sparse", "estimator": "reward"},
    }
    rollouts = rollouts_of(other)
    full = estimator(common, other).batch(rollouts)
    made = estimator(common | {"support": {"name": "top-k", "k": 3, "source": "policy"}}, other)
    some = made.batch(rollouts)
    torch.testing.assert_close(some.support.advantages_NK, full.support.advantages_NK.gather(1, some.support.ids_NK))
    now, _ = logits_of(other, rollouts)
    target = target_log_probs(now.log_softmax(-1), some, made.algorithm)
    expected = optimal_log_probs(full.support.behaviour_logits_NK, full.support.advantages_NK, 0.5)
    torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("advantage", ["dpo", "logprob"])
def test_the_tails_advantage_is_that_of_its_mass_as_a_whole(estimator, other, policy, advantage):
    algorithm = {"name": "lco-kld", "beta": 0.5, "advantage": {"name": advantage}}
    made = estimator(algorithm | {"support": {"name": "top-k", "k": 3, "source": "union"}}, other)
    rollouts = rollouts_of(other)
    batch = made.batch(rollouts)
    inside = torch.zeros(len(batch.actions_N), other.vocab_size, dtype=torch.bool).scatter(
        1, batch.support.ids_NK, True
    )

    def log_mass(model):
        return logits_of(model, rollouts)[0].softmax(-1).masked_fill(inside, 0.0).sum(-1).log()

    if advantage == "dpo":
        expected = 0.1 * (log_mass(made.scorer.reward_model) - log_mass(policy)) - 0.05 * (
            log_mass(other) - log_mass(policy)
        )
    else:
        expected = log_mass(made.scorer.reward_model) - (~inside).sum(-1).log()
    torch.testing.assert_close(batch.support.tail_advantages_N, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lco-kld", "lco-mse", "lco-lch"])
@pytest.mark.parametrize("advantage", ["dpo", "logprob"])
def test_a_support_of_every_entry_gives_the_loss_of_the_full_vocabulary(estimator, other, name, advantage):
    common = {"name": name, "beta": 0.5, "center": True, "scale": "per-step", "advantage": {"name": advantage}}
    rollouts = rollouts_of(other)
    now, _ = logits_of(other, rollouts)
    now = now + 0.3 * torch.sin(torch.arange(now.numel()).view_as(now) * 1.7)
    losses = []
    for support in ({"name": "full"}, {"name": "top-k", "k": other.vocab_size, "source": "union"}):
        made = estimator(common | {"support": support}, other)
        losses.append(LOSSES[type(made.algorithm)](now, made.batch(rollouts), made.algorithm))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)


def test_the_agreement_gate_closes_where_both_models_are_sure_of_the_sampled_token(estimator, other):
    gate = {"name": "lco-mse", "beta": 1.0, "center": True, "gate_threshold": -0.7, "advantage": {"name": "logprob"}}
    made = estimator(gate, other)
    rollouts = rollouts_of(other)
    batch = made.batch(rollouts)
    sure = [
        logits_of(model, rollouts)[0].log_softmax(-1).gather(1, batch.actions_N[:, None])[:, 0] > -0.7
        for model in (other, made.scorer.reward_model)
    ]
    assert torch.equal(batch.support.is_agreed_N, sure[0] & sure[1])
    assert not estimator(gate | {"gate_threshold": 0.0}, other).batch(rollouts).support.is_agreed_N.any()


def test_the_micro_batch_size_of_scoring_changes_nothing(estimator, other):
    rollouts = rollouts_of(other)
    first, second = (estimator({"name": "lco-kld"}, other, micro_batch_size=size).batch(rollouts) for size in (1, 4))
    for name, tensor in first.tensors().items():
        torch.testing.assert_close(tensor, second.tensors()[name], rtol=1e-4, atol=1e-5)


def test_a_beta_that_is_not_the_reward_models_is_refused(estimator, policy):
    message = r"algorithm\.advantage\.beta_dpo: 0\.2 is not the 0.1 of the reward model"
    with pytest.raises(ValueError, match=message):
        estimator({"name": "lco-kld", "advantage": {"name": "dpo", "beta_dpo": 0.2}}, policy)
    assert estimator({"name": "lco-kld", "advantage": {"name": "dpo", "beta_dpo": 0.1}}, policy).scorer.beta_dpo == 0.1


def test_a_reward_model_with_another_tokenizer_is_refused(estimator, policy, tmp_path):
    foreign = initial_policy(TINY.model_copy(update={"characters": "9876543210+=;"}), StageConfig(device="cpu"))
    foreign.save(tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"algorithm\.advantage\.reward_model: its tokenizer is not the policy's"):
        estimator(
            {
                "name": "lco-kld",
                "beta": 1.0,
                "advantage": {"name": "logprob", "reward_model": str(tmp_path / "foreign")},
            },
            policy,
        )


def test_a_plain_model_is_no_dpo_reward_model(estimator, policy, tiny_model):
    with pytest.raises(ValueError, match="no DPO reward model here"):
        estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reward_model": str(tiny_model)}}, policy)


def test_grpo_reads_the_start_only_where_it_is_pulled_to_it(estimator, other, policy):
    sparse = {"name": "sparse"}
    rollouts = rollouts_of(other)
    pulled = estimator({"name": "grpo", "kl_weight": 0.1, "advantage": sparse}, other).batch(rollouts)
    logits, actions = logits_of(policy, rollouts)
    torch.testing.assert_close(pulled.reference_logprobs_N, logits.log_softmax(-1).gather(1, actions[:, None])[:, 0])
    free = estimator({"name": "grpo", "advantage": sparse}, other).batch(rollouts)
    assert torch.equal(free.reference_logprobs_N, torch.zeros_like(free.reference_logprobs_N))


def test_a_reward_model_directory_that_lost_its_reference_is_refused(estimator, policy, tiny_reward_model, tmp_path):
    broken: Path = shutil.copytree(tiny_reward_model, tmp_path / "rm")
    shutil.rmtree(broken / "reference")
    with pytest.raises(ValueError, match="no model here"):
        estimator({"name": "lco-kld", "advantage": {"name": "dpo", "reward_model": str(broken)}}, policy)


def test_a_function_of_ones_own_gives_the_advantages_of_the_sampled_tokens(estimator, other):
    made = estimator({"name": "ppo", "advantage": {"name": "sparse"}}, other)
    own = Estimator(made.config, other, lambda rollouts, batch: batch.behaviour_logprobs_N * len(rollouts))
    batch = own.batch(rollouts_of(other))
    torch.testing.assert_close(batch.advantages_N, 4 * batch.behaviour_logprobs_N)


@pytest.mark.parametrize("support", [{"name": "full"}, {"name": "top-k", "k": 3, "source": "policy"}])
def test_a_function_of_ones_own_may_give_those_of_the_whole_vocabulary_to_lco(estimator, other, support):
    algorithm = {"name": "lco-mse", "beta": 0.5, "advantage": {"name": "sparse"}, "support": support}
    made = estimator(algorithm, other)
    table = torch.linspace(-1, 1, other.vocab_size)
    own = Estimator(made.config, other, lambda rollouts, batch: table.expand(len(batch.actions_N), -1))
    batch = own.batch(rollouts_of(other))
    torch.testing.assert_close(batch.advantages_N, table[batch.actions_N])
    ids = batch.support.ids_NK
    expected = table.expand(len(batch.actions_N), -1) if ids is None else table[ids]
    torch.testing.assert_close(batch.support.advantages_NK, expected)


def test_a_function_of_ones_own_must_give_what_the_algorithm_can_read(estimator, other):
    sparse, few = {"advantage": {"name": "sparse"}}, {"name": "top-k", "source": "policy"}
    rollouts = rollouts_of(other)

    def dense(rollouts, batch):
        return torch.zeros(len(batch.actions_N), other.vocab_size)

    for algorithm, function, message in (
        ({"name": "ppo"} | sparse, lambda rollouts, batch: torch.zeros(3), r"advantages: \(3,\) is neither"),
        ({"name": "ppo"} | sparse, dense, "for the LCO algorithms"),
        ({"name": "lco-kld", "beta": 1.0, "support": few} | sparse, dense, "`full` support"),
    ):
        with pytest.raises(ValueError, match=message):
            Estimator(estimator(algorithm, other).config, other, function).batch(rollouts)
    with pytest.raises(ValueError, match="takes the place of `sparse` alone"):
        Estimator(estimator({"name": "ppo", "advantage": {"name": "dpo"}}, other).config, other, dense)
