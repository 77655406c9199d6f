"""Entropy, divergences, clip fraction, gradient norms: what a training step reports. Pure tensors, no gradient."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lco.algorithms import LcoKld
from lco.log_probs import action_log_probs, kl_divergence
from lco.policy_gradients import RatioConfig, clip_bounds, importance_ratio
from lco.rollout import Batch
from lco.targets import target_log_probs


def entropy(log_probs_NV: Tensor) -> Tensor:
    """Entropy in nats over the whole vocabulary, `[N]`."""
    return -torch.where(log_probs_NV > -torch.inf, log_probs_NV.exp() * log_probs_NV, 0.0).sum(-1)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.stack([gradient.norm() for gradient in gradients]).norm() if gradients else torch.zeros(())


@torch.no_grad()
def token_sums(logits_NV: Tensor, batch: Batch, algorithm: object) -> dict[str, Tensor]:
    """Sums over the micro-batch's tokens of what the step reports as token means.

    `entropy` and `action_prob` of the policy; `kl_old` = KL(pi_theta || pi_old), exact where the behaviour logits of
    the whole vocabulary are kept, else `kl_old_k3`, the k3 estimate on sampled tokens; `kl_target` =
    KL(pi* || pi_theta); `clip_fraction`: tokens whose clipped ratio decides.
    """
    log_probs_NV = logits_NV.log_softmax(-1)
    actions_N = action_log_probs(logits_NV, batch.actions_N)
    sums = {"entropy": entropy(log_probs_NV).sum(), "action_prob": actions_N.exp().sum()}
    log_ratio_N = actions_N - batch.behaviour_logprobs_N
    if batch.support is not None and batch.support.ids_NK is None:
        sums["kl_old"] = kl_divergence(log_probs_NV, batch.support.behaviour_logits_NK.log_softmax(-1)).sum()
    else:  # tokens come from pi_old, so E_old[r log r - r + 1] is the estimate of KL(pi_theta || pi_old)
        sums["kl_old_k3"] = (log_ratio_N.exp() * log_ratio_N - log_ratio_N.exp() + 1).sum()
    if isinstance(algorithm, LcoKld):
        sums["kl_target"] = kl_divergence(target_log_probs(log_probs_NV, batch, algorithm), log_probs_NV).sum()
    if isinstance(algorithm, RatioConfig):
        ratio_N = importance_ratio(actions_N, batch, algorithm)
        low_N, high_N = clip_bounds(batch, algorithm)
        above_N = (batch.advantages_N > 0) & (ratio_N > high_N)
        below_N = (batch.advantages_N < 0) & (ratio_N < low_N)
        sums["clip_fraction"] = (above_N | below_N).float().sum()
    return sums
