"""The LCO objectives (Eqs. 8-10), one value per trained token; the table LOSSES, baselines included. Pure tensors.

Every function maps `(logits_NV, batch, config)` to `loss_N`. The loop alone reduces, by `token_weights` over the whole
optimizer step, so that micro-batches change nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lco.algorithms import LcoKld, LcoLch, LcoLogitConfig, LcoMse
from lco.baselines import (
    Cispo,
    ClipCov,
    Dapo,
    Gkd,
    Grpo,
    Gspo,
    KlCov,
    MiniLlm,
    Ppo,
    Reinforce,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from lco.distillation import gkd, minillm
from lco.log_probs import action_log_probs, kl_divergence
from lco.policy_gradients import cispo, clip_cov, grpo, gspo, kl_cov, ppo, reinforce, reinforce_baseline, rloo
from lco.rollout import Batch
from lco.targets import residuals, target_log_probs


def sft(logits_NV: Tensor, actions_N: Tensor) -> Tensor:
    """-log pi(a_t|s_t) of the demonstrated tokens (Eq. 1), `[N]`."""
    return -action_log_probs(logits_NV, actions_N)


def log_cosh(values: Tensor) -> Tensor:
    """Log cosh x without overflow: |x| + log1p(exp(-2|x|)) - log 2."""
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
    """Log cosh(z - z*) summed over the support (Eq. 9); convex in the logits, its gradient tanh(z - z*)."""
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


LOSSES: dict[type, Callable[[Tensor, Batch, Any], Tensor]] = {
    LcoKld: lco_kld,
    LcoLch: lco_lch,
    LcoMse: lco_mse,
    Reinforce: reinforce,
    ReinforcePlusPlus: ppo,
    ReinforcePlusPlusBaseline: reinforce_baseline,
    Rloo: rloo,
    Ppo: ppo,
    Grpo: grpo,
    Gspo: gspo,
    Dapo: ppo,
    Cispo: cispo,
    ClipCov: clip_cov,
    KlCov: kl_cov,
    Gkd: gkd,
    MiniLlm: minillm,
}


def token_weights(num_tokens_B: Tensor, reduction: str, max_tokens: int = 1, is_kept_B: Tensor | None = None) -> Tensor:
    """What each token's loss is multiplied by so that the sum over an optimizer step is the reduced loss, `[N]`.

    Args:
        reduction: `token-mean`: 1 / all tokens. `sequence-mean`: 1 / (sequences x tokens of the sequence). `sequence-sum`:
            1 / sequences. `fixed-length`: 1 / (sequences x max_tokens) (Dr. GRPO).
        max_tokens: longest completion that the sampler allows; read by `fixed-length` alone.
        is_kept_B: False for a sequence that counts in no sum and no average; None keeps all.
    """
    if is_kept_B is None:
        is_kept_B = torch.ones_like(num_tokens_B, dtype=torch.bool)
    num_sequences = is_kept_B.sum().clamp(min=1)
    divisor_B = {
        "token-mean": (num_tokens_B * is_kept_B).sum().clamp(min=1).expand(len(num_tokens_B)),
        "sequence-mean": num_tokens_B * num_sequences,
        "sequence-sum": num_sequences.expand(len(num_tokens_B)),
        "fixed-length": (num_sequences * max_tokens).expand(len(num_tokens_B)),
    }[reduction]
    return (is_kept_B / divisor_B).repeat_interleave(num_tokens_B)
