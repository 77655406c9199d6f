"""Behaviour logits + advantages -> optimal policy and logits (Eqs. 6, 7). Pure tensors.

Shapes: N tokens, V vocabulary, K entries of the support.
"""

import torch
from torch import Tensor

from lco.advantages import log_mass_outside
from lco.algorithms import LcoConfig, LcoKld, LcoLogitConfig
from lco.rollout import Batch, Support


def optimal_logits(behaviour_logits: Tensor, advantages: Tensor, beta: float | Tensor) -> Tensor:
    """Logits of the optimal policy (Eq. 7): z* = z_old + A / beta.

    softmax(z*) is pi_old exp(A / beta), normalised (Eq. 6). A constant added per step leaves the KL objective as it is,
    not MSE and log-cosh.

    Args:
        behaviour_logits: `[..., V]`, z_old of the policy that sampled.
        advantages: `[..., V]`, 0 where an entry's advantage is unknown.
        beta: > 0, in units of advantage per nat; larger keeps the target nearer the behaviour policy. A tensor
            `[..., 1]` gives each step its own.

    Returns:
        `[..., V]`.
    """
    return behaviour_logits + advantages / beta


def optimal_log_probs(behaviour_logits_NV: Tensor, advantages_NV: Tensor, beta: float | Tensor) -> Tensor:
    """log pi* of the optimal policy (Eq. 6) over the whole vocabulary."""
    return optimal_logits(behaviour_logits_NV, advantages_NV, beta).log_softmax(-1)


def token_beta(batch: Batch, config: LcoConfig) -> Tensor:
    """beta of every token, `[N, 1]`: larger where the sampled advantage is not positive or both models are sure."""
    assert isinstance(config.beta, float) and batch.support is not None, "beta is resolved before the first step"
    beta_N = torch.full_like(batch.advantages_N, config.beta)
    if config.negative_beta_factor != 1:
        beta_N = torch.where(batch.advantages_N > 0, beta_N, beta_N * config.negative_beta_factor)
    if isinstance(config, LcoLogitConfig) and config.gate_threshold < 0:
        beta_N = torch.where(batch.support.is_agreed_N, beta_N * config.gate_factor, beta_N)
    return beta_N[:, None]


def target_log_probs(log_probs_NV: Tensor, batch: Batch, config: LcoKld) -> Tensor:
    """log pi* over the whole vocabulary for LCO-KLD, constant for the optimizer.

    Outside a top-k support the target has either no mass, or the old tail's mass tilted by its one advantage and spread
    as the policy spreads it now: the gradient of a single bucket, and a convex loss all the same.

    Args:
        log_probs_NV: the policy's current ones; their gradient is not followed.
    """
    support = batch.support
    assert support is not None
    log_probs_NV = log_probs_NV.detach()
    beta_N1 = token_beta(batch, config)
    if support.ids_NK is None:
        anchor_NV = log_probs_NV if config.anchor == "current" else support.behaviour_logits_NK
        return optimal_log_probs(anchor_NV, support.advantages_NK, beta_N1)
    ids_NK, valid_NK = support.ids_NK, support.valid_NK
    assert valid_NK is not None
    tail_now_N = log_mass_outside(log_probs_NV, ids_NK)
    if config.anchor == "current":
        anchor_NK, tail_anchor_N = log_probs_NV.gather(1, ids_NK), tail_now_N
    else:
        anchor_NK = support.behaviour_logits_NK - support.behaviour_logsumexp_N[:, None]
        inside_N = anchor_NK.masked_fill(~valid_NK, -torch.inf).logsumexp(1)
        tail_anchor_N = torch.log(-torch.expm1(inside_N.clamp(max=-torch.finfo(inside_N.dtype).tiny)))
    tilted_NK = (anchor_NK + support.advantages_NK / beta_N1).masked_fill(~valid_NK, -torch.inf)
    if config.outside == "zero-mass":
        tilted_tail_N = torch.full_like(tail_anchor_N, -torch.inf)
    else:
        tilted_tail_N = tail_anchor_N + support.tail_advantages_N / beta_N1[:, 0]
        tilted_tail_N = tilted_tail_N.masked_fill(tail_now_N == -torch.inf, -torch.inf)
    normaliser_N = torch.cat([tilted_NK, tilted_tail_N[:, None]], 1).logsumexp(1)
    tail_shift_N = torch.where(tail_now_N == -torch.inf, -torch.inf, tilted_tail_N - normaliser_N - tail_now_N)
    target_NV = log_probs_NV + tail_shift_N[:, None]
    # A repeated id is masked to -inf in tilted_NK: take every id's value from its first mention.
    return target_NV.scatter(1, ids_NK, -torch.inf).scatter_reduce(
        1, ids_NK, tilted_NK - normaliser_N[:, None], reduce="amax"
    )


def gauged(logits_NV: Tensor, support: Support, gauge: str) -> Tensor:
    """The representative of the current logits that MSE and log-cosh compare, on the support."""
    if gauge == "max-shift":
        logits_NV = logits_NV - logits_NV.detach().amax(-1, keepdim=True)
    elif gauge == "logprob":
        logits_NV = logits_NV.log_softmax(-1)
    return logits_NV if support.ids_NK is None else logits_NV.gather(1, support.ids_NK)


def fitted_and_target(logits_NV: Tensor, batch: Batch, config: LcoLogitConfig) -> tuple[Tensor, Tensor]:
    """The logits z and z* that Eqs. 8 and 9 compare, on the support, `[N, K]` each; z* is constant for the optimizer.

    An entry that stands twice in its row is given itself as target the second time, and so adds nothing.
    """
    support = batch.support
    assert support is not None
    current_NK = gauged(logits_NV, support, config.gauge)
    if config.anchor == "current":
        anchor_NK = current_NK.detach()
    else:
        shift_N = {
            "raw": torch.zeros_like(support.behaviour_max_N),
            "max-shift": support.behaviour_max_N,
            "logprob": support.behaviour_logsumexp_N,
        }[config.gauge]
        anchor_NK = support.behaviour_logits_NK - shift_N[:, None]
    target_NK = optimal_logits(anchor_NK, support.advantages_NK, token_beta(batch, config))
    if support.valid_NK is not None:
        target_NK = torch.where(support.valid_NK, target_NK, current_NK.detach())
    return current_NK, target_NK
