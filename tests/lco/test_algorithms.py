"""What the configuration of an algorithm refuses: all that voids the mathematics, with the field named."""

from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from lco.algorithms import Algorithm, TrainConfig

ALGORITHM = TypeAdapter(Algorithm)
DPO = {"name": "dpo", "reward_model": "rm"}
LOGPROB = {"name": "logprob", "reward_model": "rm"}
SPARSE = {"name": "sparse"}


def refusal(adapter: Any, document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        adapter(document)
    return str(error.value)


@pytest.mark.parametrize("name", ["lco-kld", "lco-lch", "lco-mse"])
@pytest.mark.parametrize("advantage", [LOGPROB, SPARSE], ids=lambda a: a["name"])
def test_beta_dpo_needs_a_reward_model_that_has_one(name, advantage):
    message = refusal(ALGORITHM.validate_python, {"name": name, "advantage": advantage, "center": True})
    assert "beta: `beta-dpo` needs the `dpo` advantage" in message


@pytest.mark.parametrize("name", ["lco-lch", "lco-mse"])
@pytest.mark.parametrize("advantage", [DPO, LOGPROB], ids=lambda a: a["name"])
def test_an_uncentred_dense_advantage_is_refused_for_objectives_on_logits(name, advantage):
    document = {"name": name, "advantage": advantage, "beta": 1.0}
    assert "center: a dense advantage must be centred" in refusal(ALGORITHM.validate_python, document)
    for consent in ("center", "allow_uncentered"):
        assert ALGORITHM.validate_python(document | {consent: True}).name == name


def test_kld_takes_a_dense_advantage_as_it_is():
    assert ALGORITHM.validate_python({"name": "lco-kld", "advantage": DPO}).center is False


@pytest.mark.parametrize("name", ["lco-lch", "lco-mse"])
def test_the_agreement_gate_needs_a_dense_advantage(name):
    document = {"name": name, "advantage": SPARSE, "beta": 1.0, "gate_threshold": -0.02}
    document["support"] = {"name": "full"}
    assert "gate_threshold: the agreement gate needs a dense advantage" in refusal(ALGORITHM.validate_python, document)


@pytest.mark.parametrize("name", ["lco-kld", "lco-lch", "lco-mse"])
@pytest.mark.parametrize("source", ["reward-model", "union"])
def test_a_sparse_advantage_has_no_reward_model_to_choose_the_support(name, source):
    support = {"name": "top-k", "k": 4, "source": source}
    document = {"name": name, "advantage": SPARSE, "beta": 1.0, "support": support}
    assert "support.source: a sparse advantage has no reward model" in refusal(ALGORITHM.validate_python, document)
    ALGORITHM.validate_python(document | {"support": support | {"source": "policy"}})


@pytest.mark.parametrize("advantage", [DPO, SPARSE | {"estimator": "leave-one-out"}], ids=str)
def test_grpo_is_defined_with_group_normalised_rewards_alone(advantage):
    assert "advantage: GRPO is defined" in refusal(ALGORITHM.validate_python, {"name": "grpo", "advantage": advantage})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beta", 0.0),
        ("beta", -1.0),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("beta", "0.1"),
        ("negative_beta_factor", 0.5),
        ("std_floor", -0.1),
        ("support", {"name": "top-k", "k": 1}),
        ("support", {"name": "top-k", "k": 2, "source": "reference"}),
        ("anchor", "new"),
        ("outside", "ignore"),
        ("token_reduction", "mean"),
        ("gauge", "raw"),
        ("unknown", 1),
    ],
)
def test_a_value_out_of_range_or_of_another_algorithm_is_refused_by_name(field, value):
    message = refusal(ALGORITHM.validate_python, {"name": "lco-kld", "advantage": DPO, field: value})
    assert field in message


@pytest.mark.parametrize(
    ("advantage", "field", "value"),
    [
        (DPO, "reference_kl", -0.1),
        (DPO, "beta_dpo", 0.0),
        (LOGPROB, "reference_kl", 0.5),
        (SPARSE, "reward_model", "rm"),
    ],
)
def test_an_advantage_has_only_its_own_options(advantage, field, value):
    document = {"name": "lco-kld", "beta": 1.0, "advantage": advantage | {field: value}}
    assert field in refusal(ALGORITHM.validate_python, document)


@pytest.mark.parametrize("name", ["reinforce", "ppo", "grpo"])
def test_only_lco_may_average_over_micro_batches(name):
    document = {"name": name, "token_reduction": "micro-mean"}
    assert "token_reduction" in refusal(ALGORITHM.validate_python, document)


@pytest.mark.parametrize("clip", [{"clip_low": 0.0}, {"clip_low": 1.0}, {"clip_high": 0.0}], ids=str)
def test_a_clip_range_out_of_bounds_is_refused(clip):
    assert next(iter(clip)) in refusal(ALGORITHM.validate_python, {"name": "ppo"} | clip)


def test_a_whole_number_is_read_as_a_float():
    algorithm = ALGORITHM.validate_json(
        '{"name": "lco-kld", "beta": 1, "advantage": {"name": "logprob", "reward_model": "m"}}'
    )
    assert isinstance(algorithm.beta, float)


def test_defaults_are_those_that_the_method_page_states():
    kld, lch, mse = (
        ALGORITHM.validate_python({"name": name, "advantage": DPO, "center": name != "lco-kld"})
        for name in ("lco-kld", "lco-lch", "lco-mse")
    )
    for algorithm in (kld, lch, mse):
        assert (algorithm.anchor, algorithm.beta, algorithm.scale) == ("old", "beta-dpo", "none")
        assert (algorithm.advantage.reference_kl, algorithm.advantage.beta_dpo) == (0.5, "manifest")
        assert (algorithm.negative_beta_factor, algorithm.sparse_fill, algorithm.std_floor) == (1.0, "zero", 0.0)
    assert (kld.support.name, kld.outside) == ("full", "frozen-tail")
    for algorithm in (lch, mse):
        assert (algorithm.support.name, algorithm.support.k, algorithm.support.source) == ("top-k", 2, "policy")
        assert (algorithm.vocab_reduction, algorithm.gauge, algorithm.gate_threshold) == ("sum", "raw", 0.0)


def train_document(**changes: Any) -> dict[str, Any]:
    document = {"algorithm": {"name": "ppo"}, "policy": "p", "prompts": {"name": "sums"}, "group_size": 2}
    return document | changes


@pytest.mark.parametrize("estimator", ["group-normalized", "leave-one-out"])
def test_a_groups_advantage_needs_a_group(estimator):
    algorithm = {"name": "ppo", "advantage": {"name": "sparse", "estimator": estimator}}
    message = refusal(TrainConfig.model_validate, train_document(algorithm=algorithm, group_size=1))
    assert "group_size: the" in message
    TrainConfig.model_validate(train_document(algorithm=algorithm))


def test_the_steps_of_an_epoch_share_the_completions_evenly():
    message = refusal(TrainConfig.model_validate, train_document(prompts_per_iteration=5, steps_per_epoch=3))
    assert "steps_per_epoch: must divide the 10 completions" in message


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 0},
        {"inner_epochs": 0},
        {"prompts_per_iteration": 0},
        {"seed": -1},
        {"precision": "float16"},
        {"threads": 0},
        {"iterations": "30"},
        {"iterations": True},
        {"policy": ""},
        {"policy": "a\x00b"},
        {"trust_remote_code": True},
    ],
    ids=str,
)
def test_a_wrong_field_of_the_loop_is_refused_by_name(change):
    assert next(iter(change)) in refusal(TrainConfig.model_validate, train_document(**change))


@pytest.mark.parametrize("model", [*get_args(get_args(Algorithm)[0]), TrainConfig])
def test_every_field_says_what_it_is(model):
    for name, field in model.model_fields.items():
        assert field.description or name == "name", f"{model.__name__}.{name} has no docstring"


def test_a_configuration_is_immutable():
    config = TrainConfig.model_validate(train_document())
    with pytest.raises(ValidationError):
        config.iterations = 3
