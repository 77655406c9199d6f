"""A run that dies at any write of a checkpoint or of its end, or of numbers that are not finite."""

import itertools
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco import checkpoint, manifest
from lco.losses import LOSSES
from lco.manifest import newest_checkpoint
from lco.stage import NonFinite, Stage
from lco.train import train
from tests.lco.launcher import metrics, records


class Killed(BaseException):
    """The process died here."""


class FaultPoint:
    """Dies before the n-th of the calls that write something."""

    CALLS = (
        (checkpoint, "save_file"),
        (checkpoint, "write_manifest"),
        (checkpoint, "sync_directory"),
        (manifest, "write_durably"),
        (manifest, "sync_directory"),
        (Path, "rename"),
        (Path, "replace"),
    )

    def __init__(self, monkeypatch, at: int) -> None:
        self.left = at
        for place, name in self.CALLS:
            self._watch(monkeypatch, place, name)

    def _watch(self, monkeypatch, place, name) -> None:
        original = getattr(place, name)

        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return original(*arguments, **options)

        monkeypatch.setattr(place, name, call)


@pytest.mark.parametrize("name", ["lco-kld", "ppo-critic", "dcpo"])
def test_a_run_that_dies_at_any_write_resumes_as_if_it_had_not(config_of, tmp_path, name):
    """Three checkpoints, two of them inside an iteration, then the model; every third write of all, for time."""
    changes = {"iterations": 2, "prompts_per_iteration": 2, "sampling": {"max_tokens": 6}, "checkpoint_every_steps": 1}
    config = config_of(name, **changes)
    with closing(Stage(tmp_path / "whole", [])) as stage:
        train(config, stage)
    expected = metrics(tmp_path / "whole"), (tmp_path / "whole/model/model.safetensors").read_bytes()
    for at in itertools.count(len(name) % 3, 3):
        directory = tmp_path / f"dies-{at}"
        with pytest.MonkeyPatch.context() as patches, closing(Stage(directory, [])) as stage:
            FaultPoint(patches, at)
            try:
                train(config, stage)
            except Killed:
                pass
            else:
                break
        with closing(Stage(directory, [])) as stage:
            train(config, stage)
        assert (metrics(directory), (directory / "model/model.safetensors").read_bytes()) == expected, at
        assert not (directory / "checkpoints").exists()
    assert at > 20, "there are so many writes"


def poisoned(original, from_call):
    """A loss that is no number from one of its calls on."""
    calls = itertools.count()

    def loss(logits_NV, batch, config):
        return original(logits_NV, batch, config) * (torch.nan if next(calls) >= from_call else 1.0)

    return loss


def test_three_steps_that_are_not_finite_stop_the_run_and_keep_the_last_good_checkpoint(config_of, stage, monkeypatch):
    config = config_of("ppo", micro_batch_size=16, checkpoint_every_steps=1)
    kind = type(config.algorithm)
    monkeypatch.setitem(LOSSES, kind, poisoned(LOSSES[kind], 2))
    with pytest.raises(NonFinite, match="3 steps in a row, last at step 5"):
        train(config, stage)
    kept = newest_checkpoint([stage.run_dir])
    assert kept is not None and kept.step == 2, "none is written while steps are skipped"
    assert [record["step"] for record in records(stage.run_dir) if record["type"] == "checkpoint"] == [1, 2]
    assert [values["train/loss"] for values in metrics(stage.run_dir).values()][2:] == [None, None]


def test_a_single_step_that_is_not_finite_is_skipped_and_the_run_goes_on(config_of, stage, monkeypatch):
    config = config_of("ppo", micro_batch_size=16)
    kind = type(config.algorithm)
    calls, original = itertools.count(), LOSSES[kind]

    def loss(logits_NV, batch, config):
        return original(logits_NV, batch, config) * (torch.nan if next(calls) == 2 else 1.0)

    monkeypatch.setitem(LOSSES, kind, loss)
    train(config, stage)
    found = [values["train/loss"] for values in metrics(stage.run_dir).values()]
    assert len(found) == 6 and [value is None for value in found] == [False, False, True, False, False, False]
