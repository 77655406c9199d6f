"""One optimizer step of every algorithm, cut and shared in several ways: a stage of the tests' own.

`python -m tests.lco.ranks CONFIG.json RUN_DIR` measures on as many processes as it is started with and leaves
`measured.safetensors`. `measure` does the same in this process.
"""

import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lco import distributed
from lco.advantage_config import GaeAdvantage
from lco.algorithms import TrainConfig
from lco.collection import collect
from lco.config import Optimizer, StageConfig
from lco.critic import Critic
from lco.estimation import Estimator
from lco.memory import Limits
from lco.optimization import Fitting
from lco.policy import Policy, load_trained
from lco.prompts import load_prompts
from lco.rollout import Batch
from lco.stage import Stage, run_stage
from lco.train import _minibatch, fit

MEASURED = "measured.safetensors"


class Ways(StageConfig):
    """What is measured."""

    configs: dict[str, TrainConfig]
    """The run of each algorithm."""
    parallel: tuple[str, ...] = ("ddp",)
    """How the model is held."""
    cuts: tuple[tuple[int, int], ...]
    """Micro-batch size and seed of the order of the sequences."""


def measure(ways: Ways) -> dict[str, Tensor]:
    """Gradients and metrics by `algorithm/parallel/cut`, and the sampled batch by `algorithm/batch`."""
    found: dict[str, Tensor] = {}
    for name, config in ways.configs.items():
        policy = load_trained(Path(config.policy), config)
        estimator = Estimator(config, policy)
        batch = estimator.batch(collect(config, policy, load_prompts(config.prompts), 0))
        found[f"{name}/batch/actions"] = batch.actions_N
        found[f"{name}/batch/advantages"] = batch.advantages_N
        found[f"{name}/batch/behaviour"] = batch.behaviour_logprobs_N
        part = _minibatch(config.model_copy(update={"steps_per_epoch": 1}), batch, 0, 0)
        if isinstance(config.algorithm.advantage, GaeAdvantage):
            for parallel in ways.parallel:
                found |= _criticised(config, policy, part, f"{name}/{parallel}/critic", parallel)
        for parallel in ways.parallel:
            policy = load_trained(Path(config.policy), config)
            noise = torch.Generator().manual_seed(3)
            with torch.no_grad():  # away from the behaviour policy, where ratios and residuals are not trivial
                for parameter in policy.model.parameters():
                    if parameter.requires_grad:
                        parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
            free = Optimizer(learning_rate=1e-30, max_grad_norm=0.0)
            fitting = Fitting(policy.model, free, 1, parallel)
            for size, seed in ways.cuts:
                order = torch.randperm(len(part.num_tokens_B), generator=torch.Generator().manual_seed(seed))
                metrics = fit(
                    policy,
                    fitting,
                    estimator.algorithm,
                    part.select(order),
                    Limits(size, config.micro_batch_tokens),
                    0,
                    config.loss_chunk_tokens,
                    estimator.prepared,
                )
                gradient = [
                    distributed.whole(p.grad).flatten() for p in policy.model.parameters() if p.grad is not None
                ]
                found[f"{name}/{parallel}/{size}-{seed}/gradient"] = torch.cat(gradient)
                for metric, value in metrics.items():
                    found[f"{name}/{parallel}/{size}-{seed}/{metric}"] = torch.tensor(value, dtype=torch.float64)
            if name == next(iter(ways.configs)):
                found |= _poisoned(fitting, parallel)
    return found


def _criticised(config: TrainConfig, policy: Policy, part: Batch, key: str, parallel: str) -> dict[str, Tensor]:
    """The critic's second step: the first, from a head of zeros, has no gradient but the head's."""
    advantage = config.algorithm.advantage
    assert isinstance(advantage, GaeAdvantage)
    critic = Critic(config.model_copy(update={"parallel": parallel}), advantage, policy.memory)
    metrics = [critic.fit(part, step) for step in range(2)][1]
    gradient = [distributed.whole(p.grad).flatten() for p in critic.model.parameters() if p.grad is not None]
    numbers = {f"{key}/{name}": torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
    return numbers | {f"{key}/gradient": torch.cat(gradient)}


def _poisoned(fitting: Fitting, parallel: str) -> dict[str, Tensor]:
    """What a step does whose loss is not a number on the last process alone."""
    parameters = list(fitting.model.parameters())
    before = [distributed.whole(parameter.detach()).clone() for parameter in parameters]
    factor = math.nan if distributed.rank() == distributed.count() - 1 else 1.0

    def loss() -> Tensor:
        logits: Tensor = fitting.model(input_ids=torch.tensor([[3, 4, 5]])).logits
        return logits.logsumexp(-1).sum() * factor

    fitting.config = fitting.config.model_copy(update={"learning_rate": 1.0})
    fitting.update(0, [loss])
    changed = sum((distributed.whole(p.detach()) - b).abs().sum() for p, b in zip(parameters, before, strict=True))
    return {
        f"skipped/{parallel}": torch.tensor(distributed.gather([fitting.num_skipped_in_a_row])),
        f"changed/{parallel}": torch.as_tensor(changed),
    }


def measuring(ways: Ways, stage: Stage) -> None:
    """The body of the stage."""
    distributed.join(ways)
    found = measure(ways)
    if stage.is_writer:
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, stage.run_dir / MEASURED)
    distributed.wait()


if __name__ == "__main__":
    sys.exit(run_stage(Ways, measuring, is_shared=True))
