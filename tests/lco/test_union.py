"""Every algorithm of the union: its configuration, a run, exact resume, the pages that name it; and a new one."""

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal, Union, get_args

import pytest
import torch
from pydantic import Field, PositiveFloat
from safetensors.torch import load_file

from lco.algorithms import Algorithm, TrainConfig
from lco.baselines import PolicyGradientConfig
from lco.log_probs import action_log_probs
from lco.losses import LOSSES
from lco.stage import Stage, Stopped
from lco.train import train
from tests.lco.launcher import metrics
from tests.lco.union import ALGORITHMS

GOLDEN = Path(__file__).with_name("golden_trajectories.json")
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
    schemas = json.loads((DOCS.parent / "openapi.json").read_text())["components"]["schemas"]
    assert schemas[config.__name__]["properties"]["name"]["const"] == name
    assert schemas[config.__name__]["properties"].keys() == config.model_fields.keys()
    pages = [page.read_text() for page in (DOCS / "method.md", DOCS / "baselines.md") if page.exists()]
    assert any(f"`{name}`" in page and LOSSES[config].__name__ in page for page in pages)
    assert config.__doc__, name


@pytest.fixture(scope="module")
def whole(config_of, tmp_path_factory) -> Callable[[str], tuple[TrainConfig, Path]]:
    """Configuration and directory of an algorithm's run of 20 steps, 4 an iteration; made once."""
    made: dict[str, tuple[TrainConfig, Path]] = {}

    def run(name: str) -> tuple[TrainConfig, Path]:
        if name not in made:
            optimizer = {"learning_rate": 0.003, "epsilon": 1e-5}  # not to blow up the rounding of tiny gradients
            config = config_of(name, iterations=5, inner_epochs=2, sampling={"max_tokens": 8}, optimizer=optimizer)
            directory = tmp_path_factory.mktemp(name)
            with closing(Stage(directory, [])) as stage:
                train(config, stage)
            made[name] = config, directory
        return made[name]

    return run


def trajectory(directory: Path) -> dict[str, list[float]]:
    """Loss, gradient norm and reward of a run's steps, and a checksum of its last weights."""
    found = metrics(directory)
    assert sorted(found) == list(range(1, 21))
    columns = {
        name: [values[f"train/{name}"] for values in found.values() if f"train/{name}" in values]
        for name in ("loss", "grad_norm", "reward", "value_loss")
    }
    weights = load_file(directory / "model/model.safetensors")
    place = torch.arange(max(tensor.numel() for tensor in weights.values()))
    sums = [(tensor.flatten() * place[: tensor.numel()].cos()).sum().item() for tensor in weights.values()]
    return columns | {"weights": [sum(abs(total) for total in sums)]}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_trajectory_of_twenty_steps_is_the_golden_one(whole, name):
    """Other CPUs round otherwise, hence the tolerances. A change of these numbers is a change of the method, of its
    draws or of the tiny models; where it is meant, `WRITE_GOLDEN=1 pytest tests/lco/test_union.py -k golden`
    writes the file anew, and the change of the file belongs to the commit.
    """
    found = trajectory(whole(name)[1])
    if os.environ.get("WRITE_GOLDEN"):
        golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        golden = {known: golden.get(known) for known in ALGORITHMS} | {
            name: {column: [float(f"{value:.7g}") for value in values] for column, values in found.items()}
        }
        lines = ",\n".join(f"{json.dumps(known)}: {json.dumps(values)}" for known, values in golden.items())
        GOLDEN.write_text("{\n" + lines + "\n}\n")
    expected = json.loads(GOLDEN.read_text())[name]
    assert found.keys() == expected.keys()
    for column, values in expected.items():
        tolerance = 1e-3 if column == "weights" else 1e-4
        assert found[column] == pytest.approx(values, rel=tolerance, abs=1e-5), column


def test_every_golden_trajectory_belongs_to_an_algorithm():
    assert json.loads(GOLDEN.read_text()).keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_run_stopped_at_every_kind_of_step_and_resumed_is_bit_for_bit_the_uninterrupted_run(whole, tmp_path, name):
    """Stopped after each step of an iteration: inside it, with its batch saved, and between it and the next. The pieces
    are also a second run of the same configuration and seed.
    """
    config, directory = whole(name)
    attempts = []
    for number in range(5):
        attempts.insert(0, tmp_path / str(number))
        with closing(Stage(attempts[0], attempts[1:])) as piece:
            if number < 4:
                piece.stop()
                with pytest.raises(Stopped):
                    train(config, piece)
            else:
                train(config, piece)
    assert metrics(*attempts[::-1]) == metrics(directory)
    files = [path / "model/model.safetensors" for path in (attempts[0], directory)]
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
