"""The sampled-token baselines, one value per trained token. Pure tensors.

Every function maps `(logits_NV, batch, config)` to `loss_N`; a method whose action is the whole completion gives each
of its tokens the completion's loss. Shapes: B sequences, N tokens of all sequences one after another, V vocabulary.
"""

import math

import torch
from torch import Tensor

from lco.baselines import (
    Cispo,
    ClipCov,
    ClippedConfig,
    Dcpo,
    Grpo,
    Gspo,
    KlCov,
    MiniLlm,
    Reinforce,
    ReinforcePlusPlusBaseline,
    Rloo,
    StableReinforce,
)
from lco.log_probs import action_log_probs
from lco.rollout import Batch


def reinforce(logits_NV: Tensor, batch: Batch, config: Reinforce) -> Tensor:
    """-A_t log pi_theta(a_t|s_t): the policy gradient without an importance ratio."""
    return -batch.advantages_N * action_log_probs(logits_NV, batch.actions_N)


def sequence_sums(values_N: Tensor, num_tokens_B: Tensor) -> Tensor:
    """The sum of each sequence's values, `[B]`."""
    sequence_N = torch.arange(len(num_tokens_B), device=values_N.device).repeat_interleave(num_tokens_B)
    return values_N.new_zeros(len(num_tokens_B)).index_add(0, sequence_N, values_N)


RatioConfig = ClippedConfig | MiniLlm | Dcpo
"""The algorithms that clip an importance ratio."""


def couples_tokens(config: object) -> bool:
    """Whether a token's loss depends on other tokens' log-probabilities now: the ratio is the completion's."""
    return isinstance(config, Rloo | Gspo) or (isinstance(config, Grpo) and config.ratio_level == "sequence")


def importance_ratio(log_probs_N: Tensor, batch: Batch, config: RatioConfig) -> Tensor:
    """pi_theta / pi_old as the algorithm means it, `[N]`: of the token; of the completion (RLOO); its tokens' geometric
    mean (GSPO); of the token, bounded before it is exponentiated (StableReinforce). Of a token drawn from a
    mixture it is pi_theta over that mixture.
    """
    log_ratio_N = log_probs_N - batch.behaviour_logprobs_N
    if isinstance(config, Rloo):
        log_ratio_N = sequence_sums(log_ratio_N, batch.num_tokens_B).repeat_interleave(batch.num_tokens_B)
    elif couples_tokens(config):
        mean_B = sequence_sums(log_ratio_N, batch.num_tokens_B) / batch.num_tokens_B.clamp(min=1)
        log_ratio_N = mean_B.repeat_interleave(batch.num_tokens_B)
    elif isinstance(config, StableReinforce):
        log_ratio_N = log_ratio_N.clamp(-math.log(config.pre_clip), math.log(config.pre_clip))
    return log_ratio_N.exp() if batch.importance_N is None else log_ratio_N.exp() * batch.importance_N


def clip_bounds(batch: Batch, config: RatioConfig) -> tuple[Tensor, Tensor]:
    """The ratio's lower and upper bound at each token, `[N]` each.

    DCPO's follow from |r - 1| r q <= clip_low or clip_high with q = pi_old(a_t|s_t) (arXiv 2509.02333); the others'
    are 1 - clip_low and 1 + clip_high.
    """
    if isinstance(config, Dcpo):
        probs_N = batch.behaviour_logprobs_N.exp()
        low_N = (1 + (1 - 4 * config.clip_low / probs_N).clamp(min=0).sqrt()) / 2
        high_N = (1 + (1 + 4 * config.clip_high / probs_N).sqrt()) / 2
        return low_N, high_N.clamp(max=config.ratio_cap)
    ones_N = torch.ones_like(batch.behaviour_logprobs_N)
    return ones_N * (1 - config.clip_low), ones_N * (1 + config.clip_high)


def clipped_surrogate(ratio_N: Tensor, batch: Batch, config: RatioConfig, ratio_cap: float = 0.0) -> Tensor:
    """-min(r A, clip(r) A) with the bounds of `clip_bounds`, the first r at most `ratio_cap` unless that is 0."""
    clipped_N = ratio_N.clamp(*clip_bounds(batch, config))
    if ratio_cap:
        ratio_N = ratio_N.clamp(max=ratio_cap)
    return -torch.minimum(ratio_N * batch.advantages_N, clipped_N * batch.advantages_N)


def ppo(logits_NV: Tensor, batch: Batch, config: ClippedConfig) -> Tensor:
    """-min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t) (Eq. 3); also DAPO's, REINFORCE++'s, StableReinforce's
    and that of PPO with a critic, whose other parts are in advantages, sampling and weights.
    """
    ratio_N = importance_ratio(action_log_probs(logits_NV, batch.actions_N), batch, config)
    return clipped_surrogate(ratio_N, batch, config)


def dcpo(logits_NV: Tensor, batch: Batch, config: Dcpo) -> Tensor:
    """PPO's surrogate with bounds that follow the token's old probability (arXiv 2509.02333)."""
    ratio_N = importance_ratio(action_log_probs(logits_NV, batch.actions_N), batch, config)
    return clipped_surrogate(ratio_N, batch, config, config.ratio_cap)


def rloo(logits_NV: Tensor, batch: Batch, config: Rloo) -> Tensor:
    """PPO's surrogate with the ratio of whole completions, pi_theta(y) / pi_old(y) (arXiv 2402.14740)."""
    return ppo(logits_NV, batch, config)


def gspo(logits_NV: Tensor, batch: Batch, config: Gspo) -> Tensor:
    """PPO's surrogate with s = exp(mean_t log r_t) of the completion (arXiv 2507.18071, Eqs. 5 and 7)."""
    return ppo(logits_NV, batch, config)


def reinforce_baseline(logits_NV: Tensor, batch: Batch, config: ReinforcePlusPlusBaseline) -> Tensor:
    """PPO's surrogate plus kl_weight times k2 = (log pi_theta - log pi_0)^2 / 2 (arXiv 2501.03262)."""
    log_probs_N = action_log_probs(logits_NV, batch.actions_N)
    surrogate_N = clipped_surrogate(importance_ratio(log_probs_N, batch, config), batch, config)
    return surrogate_N + config.kl_weight * (log_probs_N - batch.reference_logprobs_N) ** 2 / 2


def grpo(logits_NV: Tensor, batch: Batch, config: Grpo) -> Tensor:
    """PPO's surrogate plus kl_weight times k3 = pi_0/pi_theta - log(pi_0/pi_theta) - 1 (arXiv 2402.03300, Eqs. 3, 4).

    With `is_kl_corrected` k3 is multiplied by the importance ratio.
    """
    log_probs_N = action_log_probs(logits_NV, batch.actions_N)
    ratio_N = importance_ratio(log_probs_N, batch, config)
    surrogate_N = clipped_surrogate(ratio_N, batch, config, config.ratio_cap)
    if config.kl_weight == 0:
        return surrogate_N
    gap_N = batch.reference_logprobs_N - log_probs_N
    k3_N = gap_N.exp() - gap_N - 1
    return surrogate_N + config.kl_weight * (k3_N * ratio_N if config.is_kl_corrected else k3_N)


def cispo(logits_NV: Tensor, batch: Batch, config: Cispo) -> Tensor:
    """-sg(min(r_t, ratio_cap)) A_t log pi_theta(a_t|s_t) (arXiv 2506.13585, Eq. 4; no lower bound)."""
    log_probs_N = action_log_probs(logits_NV, batch.actions_N)
    weight_N = (log_probs_N.detach() - batch.behaviour_logprobs_N).exp().clamp(max=config.ratio_cap)
    return -weight_N * batch.advantages_N * log_probs_N


def clip_cov(logits_NV: Tensor, batch: Batch, config: ClipCov) -> Tensor:
    """PPO's surrogate, 0 and without gradient at the marked tokens (arXiv 2505.22617, Eq. 11)."""
    assert batch.is_marked_N is not None
    return ppo(logits_NV, batch, config).masked_fill(batch.is_marked_N, 0.0)


def kl_cov(logits_NV: Tensor, batch: Batch, config: KlCov) -> Tensor:
    """-r_t A_t, plus penalty_weight |log r_t| at the marked tokens (arXiv 2505.22617, Eq. 13)."""
    assert batch.is_marked_N is not None
    log_ratio_N = action_log_probs(logits_NV, batch.actions_N) - batch.behaviour_logprobs_N
    penalty_N = config.penalty_weight * log_ratio_N.abs()
    return -log_ratio_N.exp() * batch.advantages_N + torch.where(batch.is_marked_N, penalty_N, 0.0)


def covariances(log_probs_N: Tensor, advantages_N: Tensor) -> Tensor:
    """(log pi - mean log pi) (A - mean A) of every token (arXiv 2505.22617, Eq. 9), `[N]`."""
    return (log_probs_N - log_probs_N.mean()) * (advantages_N - advantages_N.mean())


def marked_tokens(log_probs_N: Tensor, advantages_N: Tensor, config: ClipCov | KlCov, uniforms_N: Tensor) -> Tensor:
    """The tokens that Clip-Cov detaches or KL-Cov penalises, a bool `[N]`.

    Clip-Cov takes `share` of all tokens at random from those whose covariance is inside its bounds; KL-Cov the `share`
    with the largest. Both take at least one, where there is one.

    Args:
        uniforms_N: numbers in [0, 1): Clip-Cov's draw takes the smallest.
    """
    values_N = covariances(log_probs_N, advantages_N)
    rank_N = values_N
    count = max(1, int(config.share * len(values_N))) if config.share > 0 else 0
    if isinstance(config, ClipCov):
        qualifies_N = (values_N > config.covariance_low) & (values_N < config.covariance_high)
        rank_N = torch.where(qualifies_N, 1 - uniforms_N, -torch.inf)
        count = min(count, int(qualifies_N.sum()))
    marked_N = torch.zeros_like(values_N, dtype=torch.bool)
    marked_N[rank_N.topk(min(count, len(values_N))).indices] = True
    return marked_N
