"""What a step reports: entropies, divergences, clip fraction, gradient norms, bounds. Pure tensors, no gradient.

Names and formulas are in `lco.metrics.METRICS`. Shapes: N tokens, V vocabulary, K entries of the support.
"""

import math
import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lco.advantages import log_mass_outside, support_moments
from lco.algorithms import LcoConfig, LcoKld, LcoLch, LcoLogitConfig
from lco.baselines import DistillationConfig
from lco.distillation import teacher_log_probs
from lco.distributed import whole
from lco.log_probs import action_log_probs, kl_divergence
from lco.metrics import METRICS
from lco.policy_gradients import RatioConfig, clip_bounds, importance_ratio
from lco.rollout import Batch, Rollout, Support
from lco.targets import fitted_and_target, target_log_probs

_PROJECTION = re.compile(r"(?:^|[._])(?:[qkv]_proj|qkv_proj|Wqkv|query_key_value|c_attn)(?:[._]|$)")
"""Names of attention's input projections: Llama's and its kin's, fused ones, GPT-2's; LoRA's matrices keep them."""


def entropy(log_probs_NV: Tensor) -> Tensor:
    """Entropy in nats over the whole vocabulary, `[N]`."""
    return -torch.where(log_probs_NV > -torch.inf, log_probs_NV.exp() * log_probs_NV, 0.0).sum(-1)


def total_variation(log_probs_NV: Tensor, other_log_probs_NV: Tensor) -> Tensor:
    """Half the sum of absolute differences of two distributions, `[N]`, in [0, 1]."""
    return (log_probs_NV.exp() - other_log_probs_NV.exp()).abs().sum(-1) / 2


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.stack([gradient.norm() for gradient in gradients]).norm() if gradients else torch.zeros(())


def projection_parameters(model: nn.Module) -> list[Tensor]:
    """The query, key and value projection matrices of a model, under the names that transformers gives them."""
    return [p for name, p in model.named_parameters() if p.ndim >= 2 and _PROJECTION.search(name)]


def mean_gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Mean of the gradients' Frobenius norms; over the q/k/v projections it is the norm in the paper's figures."""
    norms = [whole(parameter.grad.norm()) for parameter in parameters if parameter.grad is not None]
    return torch.stack(norms).mean() if norms else torch.zeros(())


@torch.no_grad()
def token_sums(logits_NV: Tensor, batch: Batch, algorithm: object) -> dict[str, Tensor]:
    """Sums over the micro-batch's tokens of what the step reports as token means, under the metrics' last names.

    Sums of micro-batches add up; nothing waits for the device. `kl_old` = KL(pi_theta || pi_old) is exact where the
    behaviour logits of the whole vocabulary are kept; elsewhere `kl_old_k3` is its estimate on sampled tokens.
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
        target_NV = target_log_probs(log_probs_NV, batch, algorithm)
        sums |= _target_sums(log_probs_NV, target_NV)
        sums["kl_target_old"] = _divergence_from_old(target_NV, batch.support).sum()
    elif isinstance(algorithm, LcoLogitConfig):
        sums |= _logit_target_sums(logits_NV, batch, algorithm)
    elif isinstance(algorithm, DistillationConfig):
        sums |= _target_sums(log_probs_NV, teacher_log_probs(batch))
    if isinstance(algorithm, RatioConfig):
        ratio_N = importance_ratio(actions_N, batch, algorithm)
        low_N, high_N = clip_bounds(batch, algorithm)
        above_N = (batch.advantages_N > 0) & (ratio_N > high_N)
        below_N = (batch.advantages_N < 0) & (ratio_N < low_N)
        sums["clip_fraction"] = (above_N | below_N).float().sum()
    return sums


def _target_sums(log_probs_NV: Tensor, target_NV: Tensor) -> dict[str, Tensor]:
    """Distance to a target distribution and its spread."""
    entropy_N = entropy(target_NV)
    return {
        "kl_target": kl_divergence(target_NV, log_probs_NV).sum(),
        "tv_target": total_variation(target_NV, log_probs_NV).sum(),
        "target_entropy": entropy_N.sum(),
        "target_support": entropy_N.exp().sum(),
    }


def _divergence_from_old(target_NV: Tensor, support: Support | None) -> Tensor:
    """KL(pi* || pi_old), `[N]`; with a top-k support of the two with their tails merged into one entry."""
    assert support is not None
    if support.ids_NK is None:
        return kl_divergence(target_NV, support.behaviour_logits_NK.log_softmax(-1))
    assert support.valid_NK is not None
    old_NK = support.behaviour_logits_NK - support.behaviour_logsumexp_N[:, None]
    old_NK = old_NK.masked_fill(~support.valid_NK, -torch.inf)
    target_NK = target_NV.gather(1, support.ids_NK).masked_fill(~support.valid_NK, -torch.inf)
    tiny = torch.finfo(old_NK.dtype).tiny
    old_tail_N = torch.log(-torch.expm1(old_NK.logsumexp(1).clamp(max=-tiny)))
    target_tail_N = log_mass_outside(target_NV, support.ids_NK)
    return kl_divergence(torch.cat([target_NK, target_tail_N[:, None]], 1), torch.cat([old_NK, old_tail_N[:, None]], 1))


def _logit_target_sums(logits_NV: Tensor, batch: Batch, algorithm: LcoLogitConfig) -> dict[str, Tensor]:
    """The same for an objective on logits, all distributions normalised on the support; and the residual."""
    support = batch.support
    assert support is not None
    current_NK, target_NK = fitted_and_target(logits_NV, batch, algorithm)
    valid_NK = torch.ones_like(current_NK, dtype=torch.bool) if support.valid_NK is None else support.valid_NK

    def on_support(logits_NK: Tensor) -> Tensor:
        return logits_NK.masked_fill(~valid_NK, -torch.inf).log_softmax(-1)

    residual_N = (((current_NK - target_NK) ** 2).sum(-1) / valid_NK.sum(-1)).sqrt()
    return _target_sums(on_support(current_NK), on_support(target_NK)) | {
        "kl_target_old": kl_divergence(on_support(target_NK), on_support(support.behaviour_logits_NK)).sum(),
        "residual": residual_N.sum(),
    }


def gradient_bound(loss_N: Tensor, algorithm: LcoConfig, size_N: Tensor) -> Tensor:
    """The longest that a token's gradient in its logits can be, given the token's loss, `[N]` (Eqs. 16-18 with J = I).

    2 sqrt(L) for LCO-MSE, sqrt(n (1 - exp(-2 L / n))) for LCO-LCH, sqrt(2 L) for LCO-KLD; n entries of the support.
    Times the largest singular value of the Jacobian dz/dtheta it is Proposition 4.7. Other vocabulary reductions
    scale loss and gradient alike.

    Args:
        size_N: entries of each token's support; read by LCO-LCH and by the mean over it.
    """
    loss_N = loss_N.clamp(min=0)  # a divergence of equal distributions rounds to either side of 0
    if not isinstance(algorithm, LcoLogitConfig):
        return (2 * loss_N).sqrt()
    divisor_N = {"sum": torch.ones_like(loss_N), "half-sum": torch.full_like(loss_N, 2.0), "mean": size_N.to(loss_N)}[
        algorithm.vocab_reduction
    ]
    total_N = loss_N * divisor_N
    if isinstance(algorithm, LcoLch):
        return (size_N * -torch.expm1(-2 * total_N / size_N)).sqrt() / divisor_N
    return 2 * total_N.sqrt() / divisor_N


def rollout_metrics(rollouts: list[Rollout], batch: Batch, group_size: int) -> dict[str, float]:
    """What one iteration's completions and their advantages report."""
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    rewards_B = torch.tensor(rewards, dtype=torch.float64)
    judged = [rollout.is_correct for rollout in rollouts if rollout.is_correct is not None]
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    count = len(rollouts)
    advantages_N = batch.advantages_N[: sum(lengths)]  # demonstrations follow the completions
    metrics = {}
    if rewards:
        metrics["train/reward"] = rewards_B.mean().item()
        metrics["train/reward_std"] = rewards_B.std().item() if len(rewards) > 1 else 0.0
    if judged:
        metrics["train/accuracy"] = sum(judged) / len(judged)
    metrics |= {
        "train/completion_tokens": sum(lengths) / count,
        "train/completion_tokens_max": max(lengths),
        "train/truncated": sum(rollout.is_truncated for rollout in rollouts) / count,
        "train/advantage_std": advantages_N.std().item() if len(advantages_N) > 1 else 0.0,
        "train/advantage_max": advantages_N.abs().max().item(),
    }
    parts = [part for rollout in rollouts for part in rollout.reward_parts]
    for name in dict.fromkeys(part for part, _ in parts):
        known = [value for part, value in parts if part == name and value is not None]
        own = f"train/reward_{name}" if f"train/reward_{name}" in METRICS else f"train/reward/{name}"
        if known:
            metrics[own] = math.fsum(known) / len(known)
    if num_unrewarded := count - len(rewards):
        metrics["train/num_unrewarded"] = num_unrewarded
    if num_timed_out := sum(rollout.is_timed_out for rollout in rollouts):
        metrics["train/grader_timeout"] = num_timed_out / count
    if group_size > 1:
        groups = [rollouts[start : start + group_size] for start in range(0, count, group_size)]
        num_flat = sum(len({r.reward for r in group if r.reward is not None}) <= 1 for group in groups)
        metrics["train/zero_std_groups"] = num_flat / len(groups)
    return metrics


def support_metrics(support: Support, algorithm: LcoConfig) -> dict[str, float]:
    """What an iteration's targets report."""
    metrics = {"train/advantage_max": support.advantages_NK.abs().max().item()}
    if support.valid_NK is not None:
        inside_NK = support.behaviour_logits_NK.masked_fill(~support.valid_NK, -torch.inf)
        mass_N = (inside_NK.logsumexp(-1) - support.behaviour_logsumexp_N).exp()
        metrics["train/support_mass"] = mass_N.mean().item()
    if isinstance(algorithm, LcoLogitConfig) and algorithm.gate_threshold < 0:
        metrics["train/gated"] = support.is_agreed_N.double().mean().item()
    return metrics


def raw_spread(support: Support) -> float:
    """Mean over tokens of the advantages' standard deviation on the support: taken before they are normalised."""
    return support_moments(support.advantages_NK, support.valid_NK)[1].mean().item()
