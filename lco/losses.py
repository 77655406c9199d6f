"""The LCO objectives (Eqs. 8-10), one value per trained token; the table LOSSES, baselines included. Pure tensors.

`kl_to_target`, `log_cosh_to_target` and `mse_to_target` are public: any leading shape `[...]`, the vocabulary last
(`docs/library.md`). Every function of the table maps `(logits_NV, batch, config)` to `loss_N`. The loop
alone reduces, by `token_weights` over the whole optimizer step, so that micro-batches change nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lco.advantages import log_probabilities
from lco.algorithms import LcoKld, LcoLch, LcoLogitConfig, LcoMse
from lco.baselines import (
    Cispo,
    ClipCov,
    Dapo,
    Dcpo,
    Gkd,
    Grpo,
    Gspo,
    KlCov,
    MiniLlm,
    Ppo,
    PpoCritic,
    Reinforce,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    StableReinforce,
    VcPpo,
)
from lco.distillation import gkd, minillm
from lco.log_probs import action_log_probs, kl_divergence
from lco.policy_gradients import cispo, clip_cov, dcpo, grpo, gspo, kl_cov, ppo, reinforce, reinforce_baseline, rloo
from lco.rollout import Batch
from lco.targets import fitted_and_target, target_log_probs


def sft(logits_NV: Tensor, actions_N: Tensor) -> Tensor:
    """-log pi(a_t|s_t) of the demonstrated tokens (Eq. 1), `[N]`."""
    return -action_log_probs(logits_NV, actions_N)


def log_cosh(values: Tensor) -> Tensor:
    """Log cosh x without overflow: |x| + log1p(exp(-2|x|)) - log 2."""
    magnitude = values.abs()
    return magnitude + torch.log1p(torch.exp(-2 * magnitude)) - math.log(2)


def kl_to_target(logits: Tensor, target_logits: Tensor) -> Tensor:
    """KL(pi* || pi_theta) of each step (Eq. 10); convex in the logits, its gradient pi_theta - pi* is bounded.

    Args:
        logits: `[..., V]`, z_theta of the policy in training.
        target_logits: `[..., V]`, z* of the optimal policy or its log-probabilities; constant for the optimizer. An
            entry of -inf has no mass.

    Returns:
        `[...]`, nats, float32 or wider.
    """
    return kl_divergence(log_probabilities(target_logits.detach()), log_probabilities(logits))


def mse_to_target(logits: Tensor, target_logits: Tensor) -> Tensor:
    """(z_theta - z*)^2 summed over the vocabulary (Eq. 8); convex in the logits, its gradient 2 (z_theta - z*).

    Args:
        logits: `[..., V]`, z_theta of the policy in training.
        target_logits: `[..., V]`, z*, constant for the optimizer.

    Returns:
        `[...]`, float32 or wider.
    """
    return (_residual(logits, target_logits) ** 2).sum(-1)


def log_cosh_to_target(logits: Tensor, target_logits: Tensor) -> Tensor:
    """log cosh(z_theta - z*) summed over the vocabulary (Eq. 9); convex in the logits, its gradient tanh(z_theta - z*).

    Args:
        logits: `[..., V]`, z_theta of the policy in training.
        target_logits: `[..., V]`, z*, constant for the optimizer.

    Returns:
        `[...]`, float32 or wider.
    """
    return log_cosh(_residual(logits, target_logits)).sum(-1)


def _residual(logits: Tensor, target_logits: Tensor) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide) - target_logits.detach().to(wide)


def lco_kld(logits_NV: Tensor, batch: Batch, config: LcoKld) -> Tensor:
    """`kl_to_target` of the configured target; the target's log-probabilities are normalised already."""
    log_probs_NV = logits_NV.log_softmax(-1)
    return kl_divergence(target_log_probs(log_probs_NV, batch, config), log_probs_NV)


def lco_mse(logits_NV: Tensor, batch: Batch, config: LcoMse) -> Tensor:
    """`mse_to_target` on the support of the configured target."""
    return _reduced(mse_to_target(*fitted_and_target(logits_NV, batch, config)), batch, config)


def lco_lch(logits_NV: Tensor, batch: Batch, config: LcoLch) -> Tensor:
    """`log_cosh_to_target` on the support of the configured target."""
    return _reduced(log_cosh_to_target(*fitted_and_target(logits_NV, batch, config)), batch, config)


def _reduced(total_N: Tensor, batch: Batch, config: LcoLogitConfig) -> Tensor:
    """The sum over each token's support as the configuration wants it."""
    if config.vocab_reduction == "half-sum":
        return total_N / 2
    if config.vocab_reduction == "mean":
        support = batch.support
        assert support is not None
        return total_N / (support.advantages_NK.shape[-1] if support.valid_NK is None else support.valid_NK.sum(-1))
    return total_N


LOSSES: dict[type, Callable[[Tensor, Batch, Any], Tensor]] = {
    LcoKld: lco_kld,
    LcoLch: lco_lch,
    LcoMse: lco_mse,
    Reinforce: reinforce,
    ReinforcePlusPlus: ppo,
    ReinforcePlusPlusBaseline: reinforce_baseline,
    Rloo: rloo,
    StableReinforce: ppo,
    Ppo: ppo,
    PpoCritic: ppo,
    VcPpo: ppo,
    Grpo: grpo,
    Gspo: gspo,
    Dapo: ppo,
    Dcpo: dcpo,
    Cispo: cispo,
    ClipCov: clip_cov,
    KlCov: kl_cov,
    Gkd: gkd,
    MiniLlm: minillm,
}


def token_weights(
    num_tokens_B: Tensor,
    reduction: str,
    micro_batch_size: int = 1,
    *,
    max_tokens: int = 1,
    is_kept_B: Tensor | None = None,
) -> Tensor:
    """What each token's loss is multiplied by so that the sum over an optimizer step is the reduced loss, `[N]`.

    Args:
        num_tokens_B: tokens of each sequence, in the order in which micro-batches are cut.
        reduction: `token-mean`: 1 / all tokens. `sequence-mean`: 1 / (sequences x tokens of the sequence).
            `micro-mean`: 1 / (micro-batches x tokens of the micro-batch). `sequence-sum`: 1 / sequences.
            `fixed-length`: 1 / (sequences x max_tokens) (Dr. GRPO).
        micro_batch_size: sequences of a micro-batch; read by `micro-mean` alone.
        max_tokens: longest completion that the sampler allows; read by `fixed-length` alone.
        is_kept_B: False for a sequence that counts in no sum and no average; None keeps all.
    """
    if is_kept_B is None:
        is_kept_B = torch.ones_like(num_tokens_B, dtype=torch.bool)
    num_sequences = is_kept_B.sum().clamp(min=1)
    kept_tokens_B = num_tokens_B * is_kept_B
    match reduction:
        case "token-mean":
            divisor_B = kept_tokens_B.sum().clamp(min=1).expand(len(num_tokens_B))
        case "sequence-mean":
            divisor_B = num_tokens_B * num_sequences
        case "micro-mean":
            micros = kept_tokens_B.split(micro_batch_size)
            num_micros = max(1, sum(bool(micro.any()) for micro in micros))
            divisor_B = torch.cat([(micro.sum().clamp(min=1) * num_micros).expand(len(micro)) for micro in micros])
        case "sequence-sum":
            divisor_B = num_sequences.expand(len(num_tokens_B))
        case "fixed-length":
            divisor_B = (num_sequences * max_tokens).expand(len(num_tokens_B))
        case _:
            raise ValueError(f"token_reduction: {reduction!r} is not known")
    return (is_kept_B / divisor_B).repeat_interleave(num_tokens_B)
