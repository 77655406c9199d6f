"""The presets `paper` and `authors` (method.md 2.4): every table is a whole algorithm with the values of that page."""

import tomllib
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

import lco
from lco.advantages import normalize, top_k_support
from lco.algorithms import Algorithm
from lco.losses import LOSSES, kl_to_target, log_cosh_to_target, mse_to_target
from lco.targets import optimal_logits, target_log_probs, token_beta
from tests.lco.cases import V, gradient, randn, token_batch

DIRECTORY = Path(lco.__file__).parent / "presets"
PRESETS = {
    path.stem: {
        table: TypeAdapter(Algorithm).validate_python(document)
        for table, document in tomllib.loads(path.read_text()).items()
    }
    for path in DIRECTORY.glob("*.toml")
    if path.stem in ("paper", "authors")
}
PAPER, AUTHORS = PRESETS["paper"], PRESETS["authors"]
OBJECTIVES = ("lco-kld", "lco-lch", "lco-mse")


def test_both_lco_presets_have_every_objective_with_a_reward_model_and_with_the_rule_reward():
    assert {path.stem for path in DIRECTORY.glob("*.toml")} == {"paper", "authors", "baselines", "trl"}
    for preset in PRESETS.values():
        assert {table: algorithm.name for table, algorithm in preset.items()} == {
            name + suffix: name for name in OBJECTIVES for suffix in ("", "-rule")
        }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_papers_values_are_those_of_the_table(name):
    dense, rule = PAPER[name], PAPER[f"{name}-rule"]
    assert (dense.advantage.name, dense.advantage.reference_kl, dense.center, dense.scale) == (
        "dpo",
        0.0,
        True,
        "per-step",
    )
    assert (rule.advantage.name, rule.advantage.estimator, rule.center, rule.scale) == (
        "sparse",
        "reward",
        False,
        "none",
    )
    for algorithm in (dense, rule):
        assert (algorithm.anchor, algorithm.support.name, algorithm.beta) == ("old", "full", 0.1)
        assert (algorithm.token_reduction, algorithm.std_floor) == ("token-mean", 0.0)
        assert (algorithm.negative_beta_factor, algorithm.sparse_fill) == (1.0, "zero")
        if name != "lco-kld":
            assert (algorithm.vocab_reduction, algorithm.gauge, algorithm.gate_threshold) == ("sum", "raw", 0.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_authors_values_are_those_of_the_table(name):
    dense, rule = AUTHORS[name], AUTHORS[f"{name}-rule"]
    assert (dense.advantage.name, dense.support.source, dense.scale, dense.beta) == (
        "logprob",
        "reward-model",
        "per-step",
        0.1,
    )
    assert (dense.center, dense.negative_beta_factor) == (name != "lco-kld", 1.0)
    assert (rule.advantage.estimator, rule.support.source, rule.scale, rule.beta) == ("reward", "policy", "none", 2.0)
    assert (rule.center, rule.negative_beta_factor, rule.sparse_fill) == (False, 100.0, "zero")
    for algorithm in (dense, rule):
        assert (algorithm.support.name, algorithm.support.k, algorithm.token_reduction) == ("top-k", 5, "micro-mean")
        if name == "lco-kld":
            assert (algorithm.anchor, algorithm.outside) == ("old", "zero-mass")
        else:
            assert (algorithm.anchor, algorithm.vocab_reduction, algorithm.gauge) == ("current", "sum", "max-shift")
    if name != "lco-kld":
        assert (dense.gate_threshold, dense.gate_factor, rule.gate_threshold) == (-0.02, 100.0, 0.0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_paper_preset_is_equations_8_to_10_on_a_small_vocabulary(generator, name):
    algorithm = PAPER[name]
    old, raw, now = (randn(generator, 20, V) for _ in range(3))
    advantages = normalize(raw, center=algorithm.center, scale=algorithm.scale, std_floor=algorithm.std_floor)
    torch.testing.assert_close(advantages, (raw - raw.mean(-1, keepdim=True)) / raw.std(-1, keepdim=True))
    equation = {"lco-kld": kl_to_target, "lco-lch": log_cosh_to_target, "lco-mse": mse_to_target}[name]
    batch = token_batch(old, advantages, torch.zeros(20, dtype=torch.long))
    found = LOSSES[type(algorithm)](now, batch, algorithm)
    torch.testing.assert_close(found, equation(now, optimal_logits(old, advantages, 0.1)))


def authors_batch(generator, old, advantages, **more):
    actions = torch.randint(V, (len(old),), generator=generator)
    ids, valid = top_k_support([old], 5, actions)
    return token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid, **more)


@pytest.mark.parametrize("name", ["lco-lch", "lco-mse"])
def test_the_authors_loss_on_logits_never_falls(generator, name):
    old, advantages = randn(generator, 10, V), randn(generator, 10, V)
    batch = authors_batch(generator, old, advantages)
    algorithm = AUTHORS[name]
    values = [LOSSES[type(algorithm)](randn(generator, 10, V, scale=4), batch, algorithm) for _ in range(3)]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], values[2])


def test_the_authors_divergence_leaves_no_mass_outside_the_support(generator):
    old, advantages, now = (randn(generator, 10, V) for _ in range(3))
    batch = authors_batch(generator, old, advantages)
    target = target_log_probs(now.log_softmax(-1), batch, AUTHORS["lco-kld"]).exp()
    inside = torch.zeros(10, V, dtype=torch.bool).scatter(1, batch.support.ids_NK, True)
    assert (target[~inside] == 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(10, dtype=torch.float64))


def test_the_authors_gate_slows_tokens_that_both_models_are_sure_of_a_hundredfold(generator):
    old, advantages = randn(generator, 2, V), randn(generator, 2, V)
    batch = authors_batch(generator, old, advantages, is_agreed_N=torch.tensor([True, False]))
    assert token_beta(batch, AUTHORS["lco-mse"])[:, 0].tolist() == pytest.approx([10.0, 0.1])
    assert token_beta(batch, AUTHORS["lco-kld"])[:, 0].tolist() == [0.1, 0.1]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_authors_rule_nearly_freezes_negative_tokens(generator, name):
    old, advantages = randn(generator, 2, V), torch.zeros(2, V, dtype=torch.float64)
    advantages[0, 0], advantages[1, 0] = 1.0, -1.0
    actions = torch.zeros(2, dtype=torch.long)
    ids, valid = top_k_support([old], V, actions)
    batch = token_batch(old, advantages, actions, ids_NK=ids, valid_NK=valid)
    algorithm = AUTHORS[f"{name}-rule"]
    assert token_beta(batch, algorithm)[:, 0].tolist() == [2.0, 200.0]
    slope = gradient(lambda z: LOSSES[type(algorithm)](z, batch, algorithm), old).abs()[:, 0]
    probs = old.softmax(-1)[:, 0]
    scale = probs * (1 - probs) if name == "lco-kld" else torch.ones(2)  # slopes per unit of A / beta near 0
    assert slope[1] / scale[1] < 0.02 * slope[0] / scale[0]
