"""Toy policies: rows of logits, their gradients and Hessians under the objectives of `lco.losses`, in float64.

Shapes: N tokens, V vocabulary, P parameters of a linear policy z = z_old + J theta.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lco.advantage_config import SparseAdvantage
from lco.algorithms import FullSupport, LcoKld, LcoLch, LcoMse
from lco.baselines import Ppo, Reinforce
from lco.losses import LOSSES, sft
from lco.rollout import Batch, Support

Objective = Callable[[Tensor], Tensor]
"""Logits `[N, V]` -> loss per token `[N]`."""

_REWARD = SparseAdvantage(estimator="reward")
_NEVER = 1e-9


def step_batch(old_NV: Tensor, advantages_NV: Tensor, actions_N: Tensor) -> Batch:
    """A batch of N completions of one token each, with advantages over the whole vocabulary."""
    num_tokens = len(actions_N)
    ids_BT = torch.zeros(num_tokens, 2, dtype=torch.long)

    def at_actions(values_NV: Tensor) -> Tensor:
        return values_NV.gather(1, actions_N[:, None])[:, 0]

    support = Support(
        ids_NK=None,
        valid_NK=None,
        behaviour_logits_NK=old_NV,
        advantages_NK=advantages_NV,
        behaviour_logsumexp_N=old_NV.logsumexp(-1),
        behaviour_max_N=old_NV.amax(-1),
        tail_advantages_N=old_NV.new_zeros(num_tokens),
        is_agreed_N=torch.zeros(num_tokens, dtype=torch.bool),
    )
    return Batch(
        input_ids_BT=ids_BT,
        attention_mask_BT=torch.ones_like(ids_BT),
        mask_BT=torch.tensor([[True, False]] * num_tokens),
        num_tokens_B=torch.ones(num_tokens, dtype=torch.long),
        actions_N=actions_N,
        weights_N=old_NV.new_full((num_tokens,), 1 / num_tokens),
        behaviour_logprobs_N=at_actions(old_NV.log_softmax(-1)),
        advantages_N=at_actions(advantages_NV),
        reference_logprobs_N=at_actions(old_NV.log_softmax(-1)),
        support=support,
    )


def algorithms(beta: float, clip: float = 0.2) -> dict[str, Any]:
    """The configurations of the toy objectives by name; `ppo-unclipped` is PPO whose clip never decides.

    Args:
        beta: of the LCO objectives, over the whole vocabulary.
        clip: PPO's clip range, to both sides.
    """
    return {
        "reinforce": Reinforce(advantage=_REWARD),
        "ppo": Ppo(advantage=_REWARD, clip_low=clip, clip_high=clip),
        "ppo-unclipped": Ppo(advantage=_REWARD, clip_low=1 - _NEVER, clip_high=1 / _NEVER),
        "lco-kld": LcoKld(advantage=_REWARD, beta=beta),
        "lco-lch": LcoLch(advantage=_REWARD, beta=beta, support=FullSupport()),
        "lco-mse": LcoMse(advantage=_REWARD, beta=beta, support=FullSupport()),
    }


def objectives(batch: Batch, beta: float, clip: float = 0.2) -> dict[str, Objective]:
    """The losses of one batch by name: `sft` on its actions, and those of `algorithms`."""

    def loss_of(algorithm: Any) -> Objective:
        return lambda logits_NV: LOSSES[type(algorithm)](logits_NV, batch, algorithm)

    found = {name: loss_of(algorithm) for name, algorithm in algorithms(beta, clip).items()}
    return {"sft": lambda logits_NV: sft(logits_NV, batch.actions_N), **found}


def slope(objective: Objective, logits_NV: Tensor) -> Tensor:
    """d loss_n / d z_n of every token, `[N, V]`."""
    variable_NV = logits_NV.detach().clone().requires_grad_(True)
    (found_NV,) = torch.autograd.grad(objective(variable_NV).sum(), variable_NV)
    return found_NV


def hessians(objective: Objective, logits_NV: Tensor) -> Tensor:
    """d^2 loss_n / d z_n^2 of every token, `[N, V, V]`, symmetric.

    A token's loss sees its own logits alone, so V backward passes give all N Hessians at once.
    """
    variable_NV = logits_NV.detach().clone().requires_grad_(True)
    (first_NV,) = torch.autograd.grad(objective(variable_NV).sum(), variable_NV, create_graph=True)
    if first_NV.grad_fn is None:  # a loss without curvature
        return logits_NV.new_zeros(*logits_NV.shape, logits_NV.shape[-1])
    rows = [torch.autograd.grad(column_N.sum(), variable_NV, retain_graph=True)[0] for column_N in first_NV.unbind(-1)]
    found_NVV = torch.stack(rows, dim=1)
    return (found_NVV + found_NVV.mT) / 2


def smallest_curvature(objective: Objective, logits_NV: Tensor) -> Tensor:
    """The smallest eigenvalue of every token's Hessian in its logits, `[N]`; below 0 the loss is not convex there."""
    found_N: Tensor = torch.linalg.eigvalsh(hessians(objective, logits_NV))[:, 0]
    return found_N


def descend(objective: Objective, logits_NV: Tensor, rate: float, num_steps: int) -> list[Tensor]:
    """Logits before each step of gradient descent in the logits themselves, and after the last."""
    path = [logits_NV]
    for _ in range(num_steps):
        path.append(path[-1] - rate * slope(objective, path[-1]))
    return path


def descend_linear(
    objective: Objective, old_NV: Tensor, jacobian_NVP: Tensor, rate: float | Tensor, num_steps: int
) -> list[Tensor]:
    """The same in the parameters of z = z_old + J theta, from theta = 0; gives the logits.

    Args:
        jacobian_NVP: one J for each row, or one for all (`[1, V, P]`).
        rate: step size, of all rows or of each (`[N, 1]`).
    """
    path, theta_NP = [old_NV], old_NV.new_zeros(len(old_NV), jacobian_NVP.shape[-1])
    for _ in range(num_steps):
        theta_NP = theta_NP - rate * (slope(objective, path[-1])[:, None] @ jacobian_NVP)[:, 0]
        path.append(old_NV + (jacobian_NVP @ theta_NP[:, :, None])[:, :, 0])
    return path


def logits_with(probability: float, vocab_size: int) -> Tensor:
    """Logits `[1, V]` that give token 0 a probability and split the rest unevenly, as a policy does."""
    rest_V = torch.linspace(0.0, -2.0, vocab_size - 1, dtype=torch.float64).softmax(-1)
    return torch.cat([torch.tensor([probability], dtype=torch.float64), (1 - probability) * rest_V]).log()[None]
