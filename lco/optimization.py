"""AdamW, its schedule, and one guarded optimizer step."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lco.config import Optimizer
from lco.diagnostics import mean_gradient_norm, projection_parameters
from lco.distributed import Parallel, Replica, summed, whole
from lco.stage import NonFinite

MAX_SKIPPED_STEPS = 3
"""Steps in a row without a finite gradient after which a run stops."""


def make_optimizer(model: nn.Module, config: Optimizer) -> torch.optim.AdamW:
    """AdamW over all trained parameters; no weight decay on vectors (norms, biases)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )


def learning_rate(config: Optimizer, step: int, total_steps: int) -> float:
    """The learning rate of a step, counted from 0: linear warm-up, then the schedule down to 0 after the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    factor = {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return config.learning_rate * factor[config.schedule]


class Fitting:
    """An optimizer with its schedule: turns the losses of one step into one update of a model, on all processes."""

    def __init__(self, model: nn.Module, config: Optimizer, total_steps: int, parallel: Parallel = "ddp") -> None:
        self.model = model
        self.config = config
        self.total_steps = total_steps
        self.replica = Replica(model, parallel)
        self.optimizer = make_optimizer(model, config)
        self._projections = projection_parameters(model)
        self.num_skipped_in_a_row = 0

    @property
    def is_sound(self) -> bool:
        """Whether the last step was finite. A checkpoint after one that was not might hold what spoils every step."""
        return self.num_skipped_in_a_row == 0

    def update(self, step: int, losses: Sequence[Callable[[], Tensor]]) -> dict[str, float]:
        """Sums the gradients of the losses and applies them, see `accumulate` and `apply`."""
        return self.apply(step, self.accumulate(losses))

    def accumulate(self, losses: Sequence[Callable[[], Tensor]]) -> Tensor:
        """Sums the gradients of the losses, from nothing; a second call begins anew.

        Args:
            losses: each makes one micro-batch's loss, a scalar, already weighted so that those of all processes add up
                to the step's loss. It is backpropagated before the next is made. Every process has equally many.

        Returns:
            The sum of this process's losses, float64, on the model's device.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total_loss = torch.zeros((), dtype=torch.float64, device=next(self.model.parameters()).device)
        for position, make_loss in enumerate(losses, start=1):
            total_loss += self.replica.backward(make_loss, is_last=position == len(losses)).detach()
        return total_loss

    def apply(self, step: int, total_loss: Tensor) -> dict[str, float]:
        """Clips and applies the accumulated gradients; a step that is not finite is skipped and counted.

        Args:
            total_loss: what `accumulate` gave.

        Returns:
            `train/loss`, `train/grad_norm`, `train/grad_norm_qkv` (both before clipping) and `train/learning_rate`, the
            same on every process. The device is waited for once, after the last micro-batch.

        Raises:
            NonFinite: three steps in a row were skipped.
        """
        rate = learning_rate(self.config, step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm_qkv = mean_gradient_norm(self._projections).to(total_loss)
        limit = self.config.max_grad_norm or math.inf
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)).to(total_loss)
        total_loss = summed({"loss": total_loss})["loss"]
        total, norm_all, norm_qkv_all = torch.stack([total_loss, norm, norm_qkv]).tolist()
        if math.isfinite(norm_all) and math.isfinite(total):
            self.optimizer.step()
            self.num_skipped_in_a_row = 0
        else:
            self.num_skipped_in_a_row += 1
            if self.num_skipped_in_a_row >= MAX_SKIPPED_STEPS:
                raise NonFinite(
                    f"loss or gradient not finite in {MAX_SKIPPED_STEPS} steps in a row, last at step {step + 1}"
                )
        metrics = {"train/loss": total, "train/grad_norm": norm_all, "train/learning_rate": rate}
        return metrics | ({"train/grad_norm_qkv": norm_qkv_all} if self._projections else {})
