"""Save and resume: weights, optimizer and rollout buffer as safetensors, counters as JSON, the manifest last.

Random numbers need no saving: every draw has a seed of its own, named by the train seed and the step. Tensors are
stored in one piece, so that a run may go on with another number of processes; the first process alone writes.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lco import distributed
from lco.manifest import Manifest, newest_checkpoint, step_order, sync_directory, write_manifest
from lco.optimization import Fitting
from lco.policy import Policy, copy_weights, named_weights
from lco.stage import Stage

_WEIGHTS = "weights.safetensors"
_OPTIMIZER = "optimizer.safetensors"
_BUFFER = "buffer.safetensors"
_CRITIC = "critic.safetensors"
_CRITIC_OPTIMIZER = "critic-optimizer.safetensors"
_STATE = "state.json"


def save_checkpoint(
    stage: Stage,
    step: int,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    buffer: dict[str, Tensor] | None,
    keep: int,
    critic: Fitting | None = None,
) -> None:
    """Writes `checkpoints/step-NNNNNN` whole or not at all, and drops those older than the newest `keep`.

    All processes call it, and none goes on before it is written.

    Args:
        state: counters, as JSON.
        buffer: tensors of a half-used rollout buffer; None between iterations.
        critic: the second model in training, where there is one.
    """
    files = {_WEIGHTS: named_weights(policy.model), _OPTIMIZER: _optimizer_tensors(optimizer)}
    if critic is not None:
        files |= {_CRITIC: named_weights(critic.model), _CRITIC_OPTIMIZER: _optimizer_tensors(critic.optimizer)}
    if buffer is not None:
        files[_BUFFER] = buffer
    if distributed.rank() == 0:
        _write_checkpoint(stage, step, files, state, keep)
    distributed.wait()


def _write_checkpoint(
    stage: Stage, step: int, files: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int
) -> None:
    root = stage.run_dir / "checkpoints"
    final = root / f"step-{step:06d}"
    temporary = root / f".step-{step:06d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(tensors, temporary / name)
    (temporary / _STATE).write_text(json.dumps(state))
    names = sorted(path.name for path in temporary.iterdir())
    write_manifest(temporary, step=step, outputs={}, include=names)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    sync_directory(root)
    stage.checkpoint(step, final)
    # Only damaged ones can have more steps than this: they are left alone and must not push this one out.
    older = sorted((path for path in root.glob("step-*") if step_order(path) < step_order(final)), key=step_order)
    for path in older[: max(0, len(older) - keep + 1)]:
        shutil.rmtree(path)


def restore_checkpoint(
    stage: Stage, policy: Policy, optimizer: torch.optim.Optimizer, critic: Fitting | None = None
) -> tuple[int, dict[str, Any], dict[str, Tensor] | None]:
    """Loads the newest verified checkpoint of this run into policy and optimizer.

    Returns:
        Its step, counters and rollout buffer; step 0 and nothing where there is none.

    Raises:
        Stopped: it is of the step at which the run is to pause.
    """
    manifest: Manifest | None = newest_checkpoint(stage.earlier)
    if manifest is None:
        return 0, {}, None
    stage.arrive(manifest.step)
    directory = manifest.directory
    copy_weights(directory / _WEIGHTS, policy.model)
    _load_optimizer(optimizer, load_file(directory / _OPTIMIZER))
    if critic is not None:
        copy_weights(directory / _CRITIC, critic.model)
        _load_optimizer(critic.optimizer, load_file(directory / _CRITIC_OPTIMIZER))
    buffer_path = directory / _BUFFER
    buffer = None
    if buffer_path.exists():
        buffer = {name: tensor.to(policy.device) for name, tensor in load_file(buffer_path).items()}
    stage.event("info", f"resumed from step {manifest.step}")
    return manifest.step, json.loads((directory / _STATE).read_bytes()), buffer


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": distributed.whole(value).contiguous()
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        is_shaped = value.shape == parameter.shape and name != "step"
        held = distributed.held_like(value, parameter) if is_shaped else value
        state.setdefault(int(index), {})[name] = held
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def publish_model(stage: Stage, step: int, directory: Path, **details: Any) -> None:
    """Makes the run's directory complete: the model it holds is its output."""
    if distributed.rank() == 0:
        name = directory.relative_to(stage.run_dir).as_posix()
        write_manifest(stage.run_dir, step=step, outputs={"model": name}, include=[name], **details)
        shutil.rmtree(stage.run_dir / "checkpoints", ignore_errors=True)
    distributed.wait()
