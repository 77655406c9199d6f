"""Every algorithm of the union: its configuration, a run, exact resume, the pages that name it; and a new one."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal, Union, get_args

import pytest
import torch
from pydantic import Field, PositiveFloat

from lco.algorithms import Algorithm, TrainConfig
from lco.baselines import PolicyGradientConfig
from lco.log_probs import action_log_probs
from lco.losses import LOSSES
from lco.stage import Stage, Stopped
from lco.train import train
from tests.lco.launcher import metrics
from tests.lco.union import ALGORITHMS

DOCS = Path(__file__).parents[2] / "docs"
CONFIGS = get_args(get_args(Algorithm)[0])
NAMES = {config.model_fields["name"].default: config for config in CONFIGS}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_configuration_survives_json(config_of, name):
    config = config_of(name)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_is_in_the_schema_of_the_api_and_in_the_docs(name):
    config = NAMES[name]
    schemas = json.loads((DOCS / "openapi.json").read_text())["components"]["schemas"]
    assert schemas[config.__name__]["properties"]["name"]["const"] == name
    assert schemas[config.__name__]["properties"].keys() == config.model_fields.keys()
    pages = [page.read_text() for page in (DOCS / "method.md", DOCS / "baselines.md") if page.exists()]
    assert any(f"`{name}`" in page and LOSSES[config].__name__ in page for page in pages)
    assert config.__doc__, name


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_stopped_twice_and_resumed_is_bit_for_bit_the_uninterrupted_run(config_of, tmp_path, name):
    """Stopped inside an iteration, with its batch saved, and between two."""
    config = config_of(name, iterations=2, prompts_per_iteration=2, sampling={"max_tokens": 6})
    with closing(Stage(tmp_path / "whole", [])) as stage:
        train(config, stage)
    assert sorted(metrics(stage.run_dir)) == [1, 2, 3, 4]
    attempts = []
    for number in range(3):
        attempts.insert(0, tmp_path / str(number))
        with closing(Stage(attempts[0], attempts[1:])) as piece:
            if number < 2:
                piece.stop()
                with pytest.raises(Stopped):
                    train(config, piece)
            else:
                train(config, piece)
    assert metrics(*attempts[::-1]) == metrics(tmp_path / "whole")
    files = [path / "model/model.safetensors" for path in (attempts[0], tmp_path / "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


class Spo(PolicyGradientConfig):
    """A made-up algorithm: REINFORCE with a quadratic pull to the behaviour policy in place of a clip."""

    name: Literal["spo"] = "spo"
    pull: PositiveFloat = 0.5
    """Weight of (r - 1)^2 / 2."""


def spo(logits_NV, batch, config):
    """-(r A - pull (r - 1)^2 / 2)."""
    ratio_N = (action_log_probs(logits_NV, batch.actions_N) - batch.behaviour_logprobs_N).exp()
    return -(ratio_N * batch.advantages_N - config.pull * (ratio_N - 1) ** 2 / 2)


class Extended(TrainConfig):
    """What one more line in the union makes of the configuration."""

    algorithm: Annotated[Union[(*CONFIGS, Spo)], Field(discriminator="name")]


def test_a_token_level_algorithm_is_one_class_one_function_and_two_table_lines(config_of, stage, monkeypatch):
    monkeypatch.setitem(LOSSES, Spo, spo)
    base = config_of("ppo", iterations=2).model_dump()
    config = Extended.model_validate(base | {"algorithm": {"name": "spo", "pull": 1}})
    train(config, stage)
    found = metrics(stage.run_dir)
    assert sorted(found) == [1, 2, 3, 4]
    assert all(torch.isfinite(torch.tensor(values["train/loss"])) for values in found.values())
    assert any(values["train/grad_norm"] > 0 for values in found.values())
