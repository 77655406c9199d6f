"""The LCO objectives (Eqs. 8-10) and the baselines, one value per trained token; the table LOSSES. Pure tensors.

Every function maps `(logits_NV, batch, config)` to `loss_N`. The loop alone reduces, by `token_weights` over the whole
optimizer step, so that micro-batches change nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lco.algorithms import Grpo, LcoKld, LcoLch, LcoLogitConfig, LcoMse, Ppo, Reinforce
from lco.rollout import Batch
from lco.targets import residuals, target_log_probs


def sft(logits_NV: Tensor, actions_N: Tensor) -> Tensor:
    """-log pi(a_t|s_t) of the demonstrated tokens (Eq. 1), `[N]`."""
    return -action_log_probs(logits_NV, actions_N)


def action_log_probs(logits_NV: Tensor, actions_N: Tensor) -> Tensor:
    """log pi(a_t|s_t) of the given tokens, `[N]`."""
    return logits_NV.log_softmax(-1).gather(1, actions_N[:, None])[:, 0]


def kl_divergence(log_probs_NV: Tensor, other_log_probs_NV: Tensor) -> Tensor:
    """KL(p || q) per token from log-probabilities, `[N]`; an entry with p = 0 adds 0."""
    probs_NV = log_probs_NV.exp()
    gaps_NV = torch.where(probs_NV > 0, log_probs_NV - other_log_probs_NV, 0.0)
    return (probs_NV * gaps_NV).sum(-1)


def log_cosh(values: Tensor) -> Tensor:
    """log cosh x without overflow: |x| + log1p(exp(-2|x|)) - log 2."""
    magnitude = values.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude)) - math.log(2)


def lco_kld(logits_NV: Tensor, batch: Batch, config: LcoKld) -> Tensor:
    """KL(pi* || pi_theta) (Eq. 10); convex in the logits, its gradient pi_theta - pi* at most sqrt(2) long."""
    log_probs_NV = logits_NV.log_softmax(-1)
    return kl_divergence(target_log_probs(log_probs_NV, batch, config), log_probs_NV)


def lco_mse(logits_NV: Tensor, batch: Batch, config: LcoMse) -> Tensor:
    """(z - z*)^2 summed over the support (Eq. 8); convex in the logits, its gradient 2 (z - z*)."""
    return _over_support(residuals(logits_NV, batch, config) ** 2, batch, config)


def lco_lch(logits_NV: Tensor, batch: Batch, config: LcoLch) -> Tensor:
    """log cosh(z - z*) summed over the support (Eq. 9); convex in the logits, its gradient tanh(z - z*)."""
    return _over_support(log_cosh(residuals(logits_NV, batch, config)), batch, config)


def _over_support(values_NK: Tensor, batch: Batch, config: LcoLogitConfig) -> Tensor:
    total_N = values_NK.sum(-1)
    if config.vocab_reduction == "half-sum":
        return total_N / 2
    if config.vocab_reduction == "mean":
        assert batch.support is not None
        valid_NK = batch.support.valid_NK
        return total_N / (values_NK.shape[-1] if valid_NK is None else valid_NK.sum(-1))
    return total_N


def reinforce(logits_NV: Tensor, batch: Batch, config: Reinforce) -> Tensor:
    """-A_t log pi_theta(a_t|s_t): the policy gradient without an importance ratio."""
    return -batch.advantages_N * action_log_probs(logits_NV, batch.actions_N)


def ppo(logits_NV: Tensor, batch: Batch, config: Ppo | Grpo) -> Tensor:
    """-min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) (Eq. 3)."""
    ratio_N = (action_log_probs(logits_NV, batch.actions_N) - batch.behaviour_logprobs_N).exp()
    clipped_N = ratio_N.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -torch.minimum(ratio_N * batch.advantages_N, clipped_N * batch.advantages_N)


def grpo(logits_NV: Tensor, batch: Batch, config: Grpo) -> Tensor:
    """PPO's surrogate plus kl_weight times k3 = pi_0/pi_theta - log(pi_0/pi_theta) - 1 (arXiv 2402.03300, Eq. 3)."""
    surrogate_N = ppo(logits_NV, batch, config)
    if config.kl_weight == 0:
        return surrogate_N
    gap_N = batch.reference_logprobs_N - action_log_probs(logits_NV, batch.actions_N)
    return surrogate_N + config.kl_weight * (gap_N.exp() - gap_N - 1)


LOSSES: dict[type, Callable[[Tensor, Batch, Any], Tensor]] = {
    LcoKld: lco_kld,
    LcoLch: lco_lch,
    LcoMse: lco_mse,
    Reinforce: reinforce,
    Ppo: ppo,
    Grpo: grpo,
}


def token_weights(num_tokens_B: Tensor, reduction: str) -> Tensor:
    """What each token's loss is multiplied by so that the sum over an optimizer step is the reduced loss, `[N]`.

    Args:
        reduction: `token-mean`: 1 / all tokens. `sequence-mean`: 1 / (sequences x tokens of the sequence).
    """
    if reduction == "token-mean":
        total = num_tokens_B.sum()
        return (1 / total.clamp(min=1)).expand(int(total))
    counts_N = num_tokens_B.repeat_interleave(num_tokens_B)
    return 1 / (counts_N * len(num_tokens_B))
