"""`docs/memory.md` against the code: the options, functions and tests that it names exist; its benchmark runs."""

import argparse
import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch

from lco.config import TrainingStageConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "memory.md").read_text()


def test_every_option_of_the_table_is_a_field():
    table = PAGE.partition("|---|---|---|\n")[2].partition("\n\n")[0]
    named = [name for line in table.splitlines() for name in re.findall(r"`(\w+)", line.split("|")[1])]
    assert len(named) > 8
    assert not set(named) - TrainingStageConfig.model_fields.keys()


def test_every_test_and_function_that_the_page_names_exists():
    defined = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named and all(f"def {name}(" in defined for name in named)
    for module, name in re.findall(r"`(head|fused|policy)\.(\w+)`", PAGE):
        assert hasattr(importlib.import_module(f"lco.{module}"), name)


@pytest.mark.parametrize("is_half", [False, True], ids=["float32", "bfloat16"])
def test_the_benchmarks_two_ways_have_one_loss_and_gradient(is_half):
    spec = importlib.util.spec_from_file_location("chunked_loss", ROOT / "benchmarks" / "chunked_loss.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = []
    for variant in ("naive", "chunked"):
        options = argparse.Namespace(
            tokens=23, vocabulary=40, hidden=8, chunk=7, bfloat16=is_half, variant=variant, device="cpu"
        )
        states, frozen, heads, batch = benchmark.inputs(options, torch.device("cpu"))
        loss = benchmark.step(options, states, frozen, heads, batch)
        found.append([loss, states.grad.float(), heads[0].weight_VH.grad.float()])
    for naive, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, naive, rtol=0.05 if is_half else 1e-4, atol=1e-3 if is_half else 1e-7)
