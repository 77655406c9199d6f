"""`docs/library.md`: what it shows runs as it stands, and every function that it lists has the arguments it says."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

from lco.log_probs import kl_divergence
from tests.lco.launcher import metrics

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LISTED = re.findall(r"`lco\.(\w+)\.(\w+)\(([^`]*)\)`", PAGE)
B, T, V = 2, 3, 11


@pytest.fixture
def tensors(generator):
    """What a training loop has at hand, under the names of the page."""
    shape = (B, T, V)
    found = {
        name: torch.randn(shape, generator=generator)
        for name in ("logits", "behaviour_logits", "dpo_logits", "ref_logits")
    }
    found["logits"].requires_grad_(True)
    found["mask"] = torch.tensor([[False, True, True], [True, True, False]])
    found["token_ids"] = torch.randint(V, (B, T), generator=generator)
    found["values"] = torch.randn(B, T, generator=generator)
    return found | {"beta_dpo": 0.1}


def test_the_five_lines_are_lco_kld_with_a_dpo_reward_model(tensors):
    names = dict(tensors)
    exec(compile(BLOCKS[0], "library.md", "exec"), names)
    old, dpo, reference = (tensors[f"{name}_logits"].log_softmax(-1) for name in ("behaviour", "dpo", "ref"))
    target = (old + dpo - reference).log_softmax(-1)
    expected = kl_divergence(target, tensors["logits"].log_softmax(-1))[tensors["mask"]].mean()
    torch.testing.assert_close(names["loss"], expected)
    names["loss"].backward()
    assert (tensors["logits"].grad[~tensors["mask"]] == 0).all()
    gap = (tensors["logits"].softmax(-1) - target.exp()) / 4
    torch.testing.assert_close(tensors["logits"].grad[tensors["mask"]], gap[tensors["mask"]].detach())


def test_the_five_lines_are_five():
    assert len([line for line in BLOCKS[0].splitlines() if line]) == 5


def test_the_lines_for_rewards_run(tensors):
    names = dict(tensors)
    exec(compile(BLOCKS[1], "library.md", "exec"), names)
    names["loss"].backward()
    assert torch.isfinite(tensors["logits"].grad).all() and tensors["logits"].grad.any()


@pytest.mark.parametrize(("module", "function", "arguments"), LISTED, ids=lambda value: value)
def test_every_listed_function_has_the_arguments_that_the_page_says(module, function, arguments):
    found = inspect.signature(getattr(importlib.import_module(f"lco.{module}"), function))
    said = [argument.strip().split("=") for argument in arguments.split(",")]
    assert list(found.parameters) == [name for name, *_ in said]
    for name, *default in said:
        if default:
            assert found.parameters[name].default == eval(default[0])


def test_the_page_lists_the_eight_public_functions():
    advantages = {"sparse", "dense_logprob", "dense_dpo", "normalize"}
    losses = {"kl_to_target", "log_cosh_to_target", "mse_to_target"}
    assert {function for _, function, _ in LISTED} == advantages | {"optimal_logits"} | losses


def test_the_trl_trainer_compiles_and_overrides_what_trl_has():
    compile(BLOCKS[2], "library.md", "exec")
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed")
    names = {}
    exec(BLOCKS[2], names)
    assert issubclass(names["LcoTrainer"], names["GRPOTrainer"])
    assert hasattr(names["GRPOTrainer"], "_compute_loss")


def test_the_function_of_ones_own_trains_in_the_platforms_loop(config_of, tmp_path):
    names = {}
    exec(compile(BLOCKS[3], "library.md", "exec"), names)
    path = tmp_path / "config.json"
    path.write_text(config_of("ppo", algorithm={"name": "ppo"}, iterations=1).model_dump_json())
    names["run"](path, tmp_path / "run")
    assert sorted(metrics(tmp_path / "run")) == [1, 2]
