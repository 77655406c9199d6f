"""Fixtures of the engine's tests: one thread, tiny models that are built and never downloaded, real processes."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from lco.algorithms import TrainConfig
from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy
from lco.policy import Policy, load_policy
from lco.reward_model import save_reward_model
from lco.rollout import Batch
from lco.stage import Stage
from tests.lco.cases import N, V, randn, token_batch
from tests.lco.launcher import Launcher
from tests.lco.union import ALGORITHMS

TINY = LlamaInit(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, max_positions=64)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers, the same ones for every test."""
    return torch.Generator().manual_seed(20260301)


@pytest.fixture
def case(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Batch]:
    """Old logits, advantages, current logits, actions and the batch of all but the current logits."""
    old, advantages, now = randn(generator, N, V, scale=2), randn(generator, N, V), randn(generator, N, V, scale=2)
    actions = torch.randint(V, (N,), generator=generator)
    return old, advantages, now, actions, token_batch(old, advantages, actions)


@pytest.fixture
def tiny_policy() -> Policy:
    """A one-layer Llama with random weights, sharp enough that its distributions are not flat."""
    return _sharp(initial_policy(TINY, StageConfig(device="cpu")), 1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved policy."""
    directory = tmp_path_factory.mktemp("tiny-model")
    _sharp(initial_policy(TINY, StageConfig(device="cpu")), 1).save(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved reward model of beta 0.1 whose reference is the saved policy."""
    directory = tmp_path_factory.mktemp("tiny-reward-model")
    tuned = _sharp(load_policy(tiny_model, StageConfig(device="cpu")), 2, 0.1)
    save_reward_model(tuned, tiny_model, 0.1, directory)
    return directory


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage in a run directory of the test's own."""
    with closing(Stage(tmp_path / "run", [])) as made:
        yield made


@pytest.fixture
def resumed_stage(stage: Stage, tmp_path: Path) -> Iterator[Stage]:
    """A later attempt at the same run, in another directory."""
    with closing(Stage(tmp_path / "resumed", [stage.run_dir])) as made:
        yield made


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """Starts real processes of stages by forking an interpreter that has loaded torch already."""
    with Launcher(tmp_path_factory.mktemp("launcher")) as started:
        yield started


@pytest.fixture(scope="session")
def config_of(
    tiny_model: Path, tiny_reward_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., TrainConfig]:
    """Makes the configuration of a tiny run, on problems of which a random policy answers some."""
    problems = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "reference": "8"} for a in range(1, 8) for b in range(1, 8)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(name: str, **changes: Any) -> TrainConfig:
        algorithm = json.loads(json.dumps(ALGORITHMS[name]))
        if algorithm.get("advantage", {}).get("name") in ("dpo", "logprob", "dpo-ratio"):
            algorithm["advantage"]["reward_model"] = str(tiny_reward_model)
        document = {
            "algorithm": algorithm,
            "policy": str(tiny_model),
            "prompts": {"name": "jsonl", "path": str(problems)},
            "reward": {"extraction": "final-number"},
            "sampling": {"max_tokens": 10},
            "optimizer": {"learning_rate": 0.003},
            "prompts_per_iteration": 4,
            "group_size": 4,
            "iterations": 3,
            "steps_per_epoch": 2,
            "micro_batch_size": 3,
            "device": "cpu",
            "seed": 5,  # some of its completions are right
        }
        return TrainConfig.model_validate(document | changes)

    return make


def _sharp(policy: Policy, seed: int, deviation: float = 0.5) -> Policy:
    """Adds seeded noise to every weight matrix."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter += deviation * torch.randn(parameter.shape, generator=noise)
    return policy
