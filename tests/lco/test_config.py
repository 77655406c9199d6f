"""What the configurations of the stages refuse, with the field named."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from lco import config as configs
from lco.config import DpoConfig, LlamaInit, Optimizer, PairsConfig, Sampling, SftConfig, Sums


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (Sampling, {"temperature": -0.1}),
        (Sampling, {"top_p": 0.0}),
        (Sampling, {"top_p": 1.1}),
        (Sampling, {"max_tokens": 0}),
        (Sampling, {"batch_size": 0}),
        (Optimizer, {"learning_rate": 0.0}),
        (Optimizer, {"learning_rate": float("nan")}),
        (Optimizer, {"schedule": "step"}),
        (Optimizer, {"betas": [0.9]}),
        (Optimizer, {"betas": [0.9, 1.5]}),
        (Optimizer, {"max_grad_norm": -1.0}),
        (Optimizer, {"max_grad_norm": float("inf")}),
        (Sums, {"num_terms": 1}),
        (Sums, {"max_term": 3}),
        (Sums, {"wrong_step_rate": 1.5}),
        (Sums, {"split": "dev"}),
        (LlamaInit, {"characters": ""}),
        (LlamaInit, {"num_layers": 0}),
        (LlamaInit, {"hidden_size": 16.0}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_a_value_out_of_range_is_refused_by_name(config, change):
    with pytest.raises(ValidationError) as error:
        config.model_validate_json(json.dumps(change))
    assert error.value.errors()[0]["loc"][0] == next(iter(change))


BASES: dict[Any, dict[str, Any]] = {
    SftConfig: {"policy": {"name": "llama"}, "prompts": {"name": "sums"}},
    PairsConfig: {"policy": "p", "prompts": {"name": "sums"}},
    DpoConfig: {"policy": "p", "pairs": "pairs.jsonl"},
}


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (SftConfig, {"prompts": {"name": "sum"}}),
        (SftConfig, {"policy": {"name": "llama", "dropout": 0.1}}),
        (SftConfig, {"policy": None}),
        (SftConfig, {"validation": {"prompts": {"name": "sums"}, "every_steps": 0}}),
        (PairsConfig, {"samples_per_prompt": 1}),
        (PairsConfig, {"optimizer": {}}),
        (DpoConfig, {"beta_dpo": 0.0}),
        (DpoConfig, {"label_smoothing": 0.5}),
        (DpoConfig, {"nll_weight": -0.1}),
        (DpoConfig, {"pairs": "x" * 513}),
        (DpoConfig, {"keep_checkpoints": 0}),
        (DpoConfig, {"device": "cuda:1"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_a_stage_refuses_a_wrong_field_by_name(config, change):
    config.model_validate(BASES[config])
    with pytest.raises(ValidationError) as error:
        config.model_validate_json(json.dumps(BASES[config] | change))
    assert error.value.errors()[0]["loc"][0] == next(iter(change))


def test_every_field_of_every_configuration_says_what_it_is():
    for model in vars(configs).values():
        if isinstance(model, type) and issubclass(model, configs.Config):
            for name, field in model.model_fields.items():
                assert field.description or name == "name", f"{model.__name__}.{name} has no docstring"


def test_a_configuration_survives_its_own_json():
    for model, document in BASES.items():
        config = model.model_validate(document)
        assert model.model_validate_json(config.model_dump_json()) == config
