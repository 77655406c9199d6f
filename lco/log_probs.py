"""Log-probabilities of tokens and divergences of distributions. Pure tensors.

Shapes: N tokens, V vocabulary.
"""

import math

import torch
from torch import Tensor


def action_log_probs(logits_NV: Tensor, actions_N: Tensor) -> Tensor:
    """Log pi(a_t|s_t) of the given tokens, `[N]`."""
    return logits_NV.log_softmax(-1).gather(1, actions_N[:, None])[:, 0]


def kl_divergence(log_probs_NV: Tensor, other_log_probs_NV: Tensor) -> Tensor:
    """KL(p || q) per token from log-probabilities, `[N]`; an entry with p = 0 adds 0."""
    probs_NV = log_probs_NV.exp()
    gaps_NV = torch.where(probs_NV > 0, log_probs_NV - other_log_probs_NV, 0.0)
    return (probs_NV * gaps_NV).sum(-1)


def mixture_log_probs(own_log_probs: Tensor, teacher_log_probs: Tensor, alpha: float) -> Tensor:
    """log(alpha p_T + (1 - alpha) pi) of log-probabilities, any shape."""
    if alpha == 1:
        return teacher_log_probs
    return torch.logaddexp(teacher_log_probs + math.log(alpha), own_log_probs + math.log1p(-alpha))
