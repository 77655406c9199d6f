"""A run that pauses by itself at a step, and goes on from there without computing anything twice."""

import json

import pytest

from lco.config import SftConfig
from lco.run_directory import outputs
from lco.sft import warm_up
from lco.stage import EXIT_STOPPED, run_stage
from tests.lco.conftest import TINY
from tests.lco.launcher import metrics

DOCUMENT = {
    "policy": TINY.model_dump(),
    "prompts": {"name": "sums", "num_problems": 20, "num_terms": 2},
    "steps": 6,
    "batch_size": 4,
    "device": "cpu",
    "checkpoint_every_steps": 100,
}


@pytest.fixture
def run(tmp_path):
    """Runs the stage in a directory of a name, after others; gives the exit status."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(DOCUMENT))

    def start(name, *options):
        return run_stage(SftConfig, warm_up, [str(config), str(tmp_path / name), *options])

    return start


def test_it_stops_after_the_step_with_a_checkpoint_and_says_why(run, tmp_path):
    assert run("a", "--pause-at-step", "2") == EXIT_STOPPED
    assert list(metrics(tmp_path / "a")) == [1, 2]
    assert json.loads((tmp_path / "a" / "error.json").read_text())["outcome"] == "boundary"
    assert (tmp_path / "a" / "checkpoints" / "step-000002").is_dir()


def test_it_goes_on_from_there_as_if_it_had_never_paused(run, tmp_path):
    assert run("whole") == 0
    assert run("a", "--pause-at-step", "2") == EXIT_STOPPED
    assert run("b", "--pause-at-step", "4", "--resume-from", str(tmp_path / "a")) == EXIT_STOPPED
    assert run("c", "--resume-from", str(tmp_path / "b"), str(tmp_path / "a")) == 0
    assert [list(metrics(tmp_path / name)) for name in "abc"] == [[1, 2], [3, 4], [5, 6]]
    together = {**metrics(tmp_path / "a"), **metrics(tmp_path / "b"), **metrics(tmp_path / "c")}
    whole = metrics(tmp_path / "whole")
    assert {step: one["train/loss"] for step, one in together.items()} == {
        step: one["train/loss"] for step, one in whole.items()
    }
    assert set(outputs(tmp_path / "c")) == {"model"}


def test_an_attempt_that_died_at_the_boundary_is_not_computed_past_it_and_its_numbers_are_told_again(run, tmp_path):
    assert run("a", "--pause-at-step", "2") == EXIT_STOPPED
    (tmp_path / "a" / "error.json").unlink()  # as after a kill between the checkpoint and the end
    assert run("b", "--pause-at-step", "2", "--resume-from", str(tmp_path / "a")) == EXIT_STOPPED
    assert metrics(tmp_path / "b") == {2: metrics(tmp_path / "a")[2]}
    assert json.loads((tmp_path / "b" / "error.json").read_text())["outcome"] == "boundary"
