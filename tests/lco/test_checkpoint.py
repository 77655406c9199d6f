"""Checkpoints: whole or absent, rotated, restored exactly."""

import json
import shutil

import pytest
import torch

from lco.checkpoint import publish_model, restore_checkpoint, save_checkpoint
from lco.config import Optimizer, StageConfig
from lco.initial import initial_policy
from lco.manifest import read_manifest
from lco.optimization import Fitting
from lco.policy import have_same_weights
from tests.lco.conftest import TINY
from tests.lco.launcher import records


def step(policy, fitting, number):
    ids = torch.tensor([[3 + number % 9, 5, 7, 4]])
    logits = policy.token_logits(ids, torch.ones_like(ids), torch.ones_like(ids).bool())
    return fitting.update(number, [lambda: logits.logsumexp(-1).sum() - logits[:, number % 16].sum()])


def fitting_of(policy):
    config = Optimizer(learning_rate=0.01, schedule="cosine", warmup_steps=2, weight_decay=0.1, betas=(0.9, 0.95))
    return Fitting(policy.model, config, 20)


def saved(stage, policy, fitting, at, keep=2, buffer=None):
    save_checkpoint(stage, at, policy, fitting.optimizer, {"num_skipped_in_a_row": 1}, buffer, keep)


def names(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_optimizer_weights_counters_and_buffer_are_restored_exactly(tiny_policy, stage, resumed_stage):
    fitting = fitting_of(tiny_policy)
    for number in range(5):
        step(tiny_policy, fitting, number)
    buffer = {"weights_N": torch.rand(3), "actions_N": torch.tensor([3, 1, 2])}
    saved(stage, tiny_policy, fitting, 5, buffer=buffer)
    expected = [step(tiny_policy, fitting, number) for number in range(5, 9)]

    other = initial_policy(TINY, StageConfig(device="cpu", seed=9))
    restored = fitting_of(other)
    at, state, found = restore_checkpoint(resumed_stage, other, restored.optimizer)
    assert (at, state) == (5, {"num_skipped_in_a_row": 1})
    assert found is not None and all(torch.equal(found[name], tensor) for name, tensor in buffer.items())
    assert [step(other, restored, number) for number in range(5, 9)] == expected
    assert have_same_weights(tiny_policy, other)
    for index, first in fitting.optimizer.state_dict()["state"].items():
        second = restored.optimizer.state_dict()["state"][index]
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)


def test_tied_weights_are_stored_once_and_restored(stage, resumed_stage):
    def tied():
        policy = initial_policy(TINY, StageConfig(device="cpu"))
        policy.model.config.tie_word_embeddings = True
        policy.model.lm_head.weight = policy.model.get_input_embeddings().weight
        return policy

    policy = tied()
    fitting = fitting_of(policy)
    step(policy, fitting, 0)
    saved(stage, policy, fitting, 1)
    other = tied()
    restore_checkpoint(resumed_stage, other, fitting_of(other).optimizer)
    assert other.model.lm_head.weight is other.model.get_input_embeddings().weight
    assert torch.equal(other.model.lm_head.weight, policy.model.lm_head.weight)


def test_nothing_to_resume_from_is_step_0(tiny_policy, stage):
    assert restore_checkpoint(stage, tiny_policy, fitting_of(tiny_policy).optimizer) == (0, {}, None)


def test_a_checkpoint_between_iterations_has_no_buffer(tiny_policy, stage):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    saved(stage, tiny_policy, fitting, 1)
    assert restore_checkpoint(stage, tiny_policy, fitting.optimizer)[2] is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_rotation_keeps_the_newest(tiny_policy, stage, keep):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    for at in range(1, 6):
        saved(stage, tiny_policy, fitting, at, keep)
    assert names(stage.run_dir) == [f"step-{at:06d}" for at in range(6 - keep, 6)]


@pytest.mark.parametrize("damage", ["weights.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_previous(tiny_policy, stage, damage):
    fitting = fitting_of(tiny_policy)
    for at in (1, 2):
        step(tiny_policy, fitting, at - 1)
        saved(stage, tiny_policy, fitting, at)
    path = stage.run_dir / "checkpoints/step-000002" / damage
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert restore_checkpoint(stage, tiny_policy, fitting.optimizer)[0] == 1


def test_a_new_checkpoint_is_kept_beside_a_damaged_one_of_more_steps(tiny_policy, stage):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    saved(stage, tiny_policy, fitting, 6, keep=1)
    (stage.run_dir / "checkpoints/step-000006/state.json").write_text("{")
    saved(stage, tiny_policy, fitting, 5, keep=1)
    assert restore_checkpoint(stage, tiny_policy, fitting.optimizer)[0] == 5
    saved(stage, tiny_policy, fitting, 6, keep=1)
    assert names(stage.run_dir) == ["step-000006"]
    assert restore_checkpoint(stage, tiny_policy, fitting.optimizer)[0] == 6


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_replaced(tiny_policy, stage):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    saved(stage, tiny_policy, fitting, 1)
    half = stage.run_dir / "checkpoints/.step-000002.tmp"
    shutil.copytree(stage.run_dir / "checkpoints/step-000001", half)
    (half / "stale").write_text("x")
    assert restore_checkpoint(stage, tiny_policy, fitting.optimizer)[0] == 1
    saved(stage, tiny_policy, fitting, 2)
    assert names(stage.run_dir) == ["step-000001", "step-000002"]
    assert not (stage.run_dir / "checkpoints/step-000002/stale").exists()


def test_a_checkpoint_is_announced_after_it_is_complete(tiny_policy, stage):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    saved(stage, tiny_policy, fitting, 1)
    (record,) = [record for record in records(stage.run_dir) if record["type"] == "checkpoint"]
    manifest = read_manifest(stage.run_dir / record["path"])
    assert (record["step"], manifest.step) == (1, 1)
    assert {path.suffix for path in manifest.directory.iterdir()} == {".json", ".safetensors"}


def test_publishing_states_the_output_and_drops_the_checkpoints(tiny_policy, stage):
    fitting = fitting_of(tiny_policy)
    step(tiny_policy, fitting, 0)
    saved(stage, tiny_policy, fitting, 1)
    tiny_policy.save(stage.run_dir / "model")
    publish_model(stage, 3, stage.run_dir / "model", seed=4)
    manifest = read_manifest(stage.run_dir)
    assert (manifest.step, manifest.outputs, manifest.details) == (3, {"model": "model"}, {"seed": 4})
    assert not (stage.run_dir / "checkpoints").exists()
    assert "model/model.safetensors" in json.loads((stage.run_dir / "manifest.json").read_text())["files"]
