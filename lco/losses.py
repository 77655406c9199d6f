"""The LCO objectives (Eqs. 8-10) and the baselines, one value per trained token; the table LOSSES. Pure tensors.

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
from lco.algorithms import Grpo, LcoKld, LcoLch, LcoLogitConfig, LcoMse, Ppo, Reinforce
from lco.rollout import Batch
from lco.targets import fitted_and_target, target_log_probs


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


def token_weights(num_tokens_B: Tensor, reduction: str, micro_batch_size: int = 1) -> Tensor:
    """What each token's loss is multiplied by so that the sum over an optimizer step is the reduced loss, `[N]`.

    Args:
        num_tokens_B: tokens of each sequence, in the order in which micro-batches are cut.
        reduction: `token-mean`: 1 / all tokens. `sequence-mean`: 1 / (sequences x tokens of the sequence).
            `micro-mean`: 1 / (micro-batches x tokens of the micro-batch).
        micro_batch_size: sequences of a micro-batch; read by `micro-mean` alone.
    """
    if reduction == "token-mean":
        total = num_tokens_B.sum()
        return (1 / total.clamp(min=1)).expand(int(total))
    if reduction == "micro-mean":
        micros = num_tokens_B.split(micro_batch_size)
        weights = [(1 / (micro.sum().clamp(min=1) * len(micros))).expand(int(micro.sum())) for micro in micros]
        return torch.cat(weights)
    counts_N = num_tokens_B.repeat_interleave(num_tokens_B)
    return 1 / (counts_N * len(num_tokens_B))
