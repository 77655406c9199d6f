"""Rewards or reward models -> advantages over tokens and vocabulary (Eqs. 11-13). Pure tensors.

Public (`docs/library.md`) are `sparse`, `dense_logprob`, `dense_dpo`, `normalize`: any leading shape, vocabulary last.

Shapes: B completions, G completions of one prompt, N tokens, V vocabulary, K entries of the support.
"""

import torch
from torch import Tensor

GROUP_STD_FLOOR = 1e-4  # added to a group's standard deviation, as TRL does; keeps an all-equal group at 0
_MIN_UNKNOWN_MASS = 0.1  # the authors' floor under the behaviour policy's mass of unknown entries


def group_normalized(rewards_B: Tensor, group_size: int) -> Tensor:
    """(r - mean) / (std + 1e-4) within each prompt's group, std with ddof 1 (GRPO); 0 for an all-equal group."""
    rewards_PG = rewards_B.view(-1, group_size)
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    return (centred_PG / (rewards_PG.std(1, keepdim=True) + GROUP_STD_FLOOR)).view(-1)


def group_centered(rewards_B: Tensor, group_size: int) -> Tensor:
    """R - mean within each prompt's group (Dr. GRPO, arXiv 2503.20783: no division by the standard deviation)."""
    rewards_PG = rewards_B.view(-1, group_size)
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)).view(-1)


def batch_scaled(rewards_B: Tensor, group_size: int) -> Tensor:
    """(r - mean of the prompt's group) / (std of all rewards + 1e-4), std with ddof 1 (TRL's scale_rewards batch)."""
    return group_centered(rewards_B, group_size) / (rewards_B.std() + GROUP_STD_FLOOR)


def overlong_penalty(num_tokens_B: Tensor, max_tokens: int, share: float) -> Tensor:
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13): 0 up to L_max - L_cache tokens, then linear to -1.

    -1 is reached at L_max = max_tokens; L_cache = share max_tokens. 0 everywhere for share 0.
    """
    cache = share * max_tokens
    if cache == 0:
        return torch.zeros_like(num_tokens_B, dtype=torch.float32)
    return ((max_tokens - cache - num_tokens_B) / cache).clamp(min=-1, max=0)


def leave_one_out(rewards_B: Tensor, group_size: int) -> Tensor:
    """Each reward minus the mean of the others of its group (RLOO)."""
    rewards_PG = rewards_B.view(-1, group_size)
    others_PG = (rewards_PG.sum(1, keepdim=True) - rewards_PG) / (group_size - 1)
    return (rewards_PG - others_PG).view(-1)


def compared_known(rewards_B: Tensor, group_size: int, estimator: str) -> Tensor:
    """The advantage of each completion where some rewards are missing, as if those completions had not been sampled.

    A prompt's group is its completions with a reward; where there are fewer than two, nothing is compared: 0.

    Args:
        rewards_B: NaN where a reward is missing.
        estimator: `reward`, `group-normalized`, `group-centered`, `batch-scaled`, `leave-one-out`, `batch-normalized`.

    Returns:
        0 where the reward is missing.
    """
    is_known_B = ~rewards_B.isnan()
    known_K = rewards_B[is_known_B]
    advantages_B = torch.zeros_like(rewards_B)
    if estimator in ("reward", "batch-normalized"):
        if estimator == "reward":
            advantages_B[is_known_B] = known_K
        elif len(known_K) > 1:
            advantages_B[is_known_B] = z_scored(known_K)
        return advantages_B
    for start in range(0, len(rewards_B), group_size):
        rows_G = start + is_known_B[start : start + group_size].nonzero()[:, 0]
        rewards_G = rewards_B[rows_G]
        size = len(rows_G)
        if size < 2:
            continue
        if estimator == "group-normalized":
            advantages_B[rows_G] = group_normalized(rewards_G, size)
        elif estimator == "leave-one-out":
            advantages_B[rows_G] = leave_one_out(rewards_G, size)
        else:
            advantages_B[rows_G] = group_centered(rewards_G, size)
    if estimator == "batch-scaled" and len(known_K) > 1:
        advantages_B = advantages_B / (known_K.std() + GROUP_STD_FLOOR)
    return advantages_B


def compared_steps(rewards_S: Tensor, groups_S: Tensor, estimator: str) -> Tensor:
    """The advantage of each step of several completions, compared with all steps of its prompt's group, `[S]`.

    Args:
        groups_S: number of each step's group, from 0.
        estimator: `reward`, `group-normalized`, `group-centered` (both by the group's steps) or `batch-normalized`.
    """
    if estimator == "reward":
        return rewards_S
    if estimator == "batch-normalized":
        return z_scored(rewards_S)
    zeros_P = rewards_S.new_zeros(int(groups_S.max()) + 1)
    counts_P = zeros_P.index_add(0, groups_S, torch.ones_like(rewards_S)).clamp(min=1)
    means_P = zeros_P.index_add(0, groups_S, rewards_S) / counts_P
    centred_S = rewards_S - means_P[groups_S]
    if estimator == "group-centered":
        return centred_S
    deviations_P = (zeros_P.index_add(0, groups_S, centred_S**2) / (counts_P - 1).clamp(min=1)).sqrt()
    return centred_S / (deviations_P[groups_S] + GROUP_STD_FLOOR)


def z_scored(values_N: Tensor) -> Tensor:
    """(x - mean) / std over all values, std with ddof 1; 0 where they are all equal."""
    if bool((values_N == values_N[0]).all()):  # their rounded mean may differ from them: no division by that
        return torch.zeros_like(values_N)
    return (values_N - values_N.mean()) / values_N.std()


def without_outliers(values_N: Tensor, num_deviations: float) -> Tensor:
    """The values, 0 in place of those farther than so many standard deviations (ddof 1) from their mean
    (StableReinforce's advantage filter, arXiv 2505.02835).
    """
    return torch.where(z_scored(values_N).abs() > num_deviations, 0.0, values_N)


def generalized_advantages(
    rewards_N: Tensor,
    values_N: Tensor,
    last_values_B: Tensor,
    num_tokens_B: Tensor,
    discount: float,
    gae_lambda: float,
) -> Tensor:
    """A_t = sum_{i>=t} (gamma lambda)^(i-t) (r_i + gamma V_{i+1} - V_i) within each sequence (arXiv 1506.02438), `[N]`.

    With lambda 1 they are the discounted rewards to come less V_t; A_t + V_t are the returns that a critic learns.

    Args:
        values_N: V of the state before each token.
        last_values_B: V after each sequence's last token: 0 where it ends there.
    """
    batch_size, width = len(num_tokens_B), int(num_tokens_B.max())
    inside_BT = torch.arange(width, device=rewards_N.device)[None] < num_tokens_B[:, None]

    def padded(flat_N: Tensor) -> Tensor:
        return flat_N.new_zeros(batch_size, width).masked_scatter(inside_BT, flat_N)

    values_BT = padded(values_N)
    next_BT = torch.cat([values_BT[:, 1:], values_BT.new_zeros(batch_size, 1)], 1)
    next_BT = next_BT.scatter(1, num_tokens_B[:, None] - 1, last_values_B[:, None].to(next_BT.dtype))
    deltas_BT = padded(rewards_N) + discount * next_BT - values_BT
    advantages_BT = torch.zeros_like(values_BT)
    running_B = values_BT.new_zeros(batch_size)
    for t in reversed(range(width)):  # padding keeps the sum at 0 until a sequence's last token is reached
        running_B = torch.where(inside_BT[:, t], deltas_BT[:, t] + discount * gae_lambda * running_B, 0.0)
        advantages_BT[:, t] = running_B
    return advantages_BT[inside_BT]


def log_probabilities(logits: Tensor) -> Tensor:
    """log softmax over the last axis, in float32 or wider: narrower types cannot resolve a divergence of 1e-3 nats."""
    return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def sparse(token_ids: Tensor, values: Tensor, vocab_size: int) -> Tensor:
    """Advantages known for one token a step (Eq. 11): A(s_t, a) = A_t for a = a_t, else 0.

    Args:
        token_ids: the sampled tokens a_t, integers `[...]`.
        values: their advantages A_t, `[...]`.
        vocab_size: V.

    Returns:
        `[..., V]`, of the type of `values`.
    """
    return values.new_zeros(*values.shape, vocab_size).scatter(-1, token_ids[..., None], values[..., None])


def dense_logprob(logits: Tensor) -> Tensor:
    """log pi_phi(a|s) for every token (Eq. 12): Q - V, the logits of one language model less their logsumexp.

    Args:
        logits: `[..., V]`, of the model phi at the sampled ids.

    Returns:
        `[..., V]`, float32 or wider.
    """
    return log_probabilities(logits)


def dense_dpo(dpo_logits: Tensor, ref_logits: Tensor, beta_dpo: float) -> Tensor:
    """beta_dpo log(pi_dpo(a|s) / pi_ref(a|s)) for every token (Eq. 13, with its constant factor).

    Args:
        dpo_logits: `[..., V]`, of the DPO model at the sampled ids.
        ref_logits: `[..., V]`, of the model that it was tuned from.
        beta_dpo: > 0, the beta that it was tuned with.

    Returns:
        `[..., V]`, float32 or wider: the log-ratio is a small difference of large numbers.
    """
    return beta_dpo * (log_probabilities(dpo_logits) - log_probabilities(ref_logits))


def reference_kl_advantages(behaviour_logits_NV: Tensor, initial_logits_NV: Tensor, weight: float) -> Tensor:
    """-weight log(pi_old / pi_0) for every token: the pull to the starting policy that `reference_kl` adds.

    With A = beta_dpo log(pi_dpo / pi_ref), weight = lambda beta_dpo, pi_ref = pi_0, iterating Eq. 6 has the fixed point
    pi_0^(1 - 1/lambda) pi_dpo^(1/lambda); for lambda = 1 and beta = beta_dpo one step reaches pi_dpo itself.
    """
    return -weight * (behaviour_logits_NV.log_softmax(-1) - initial_logits_NV.log_softmax(-1))


def sparse_fill(advantages_N: Tensor, logprobs_N: Tensor, fill: str) -> tuple[Tensor, Tensor]:
    """The advantage of each sampled token and that of every other entry of its vocabulary, `[N]` each.

    Args:
        logprobs_N: of the sampled tokens under the behaviour policy.
        fill: `zero`: others get 0. `zero-mean`: the sampled token gets A (1 - p), the others the one value that makes
            the mean under the behaviour policy 0 unless their mass is below 0.1 (the authors' `estimate_vocab_adv`).
    """
    if fill == "zero":
        return advantages_N, torch.zeros_like(advantages_N)
    probs_N = logprobs_N.exp()
    sampled_N = advantages_N * (1 - probs_N)
    return sampled_N, -probs_N * sampled_N / (1 - probs_N).clamp(min=_MIN_UNKNOWN_MASS)


def top_k_support(candidates: list[Tensor], k: int, actions_N: Tensor) -> tuple[Tensor, Tensor]:
    """Ids of the k largest entries of each candidate `[N, V]` and of the sampled token, with a mask of first mentions.

    Returns:
        ids_NK sorted within a row, valid_NK True where an id stands for the first time.
    """
    ids = [candidate.topk(min(k, candidate.shape[-1]), dim=-1).indices for candidate in candidates]
    ids_NK = torch.cat([*ids, actions_N[:, None]], dim=1).sort(1).values
    valid_NK = torch.ones_like(ids_NK, dtype=torch.bool)
    valid_NK[:, 1:] = ids_NK[:, 1:] != ids_NK[:, :-1]
    return ids_NK, valid_NK


def log_mass_outside(log_probs_NV: Tensor, ids_NK: Tensor) -> Tensor:
    """Log of the probability outside a support, per token; -inf where the support is the whole vocabulary."""
    return log_probs_NV.scatter(1, ids_NK, -torch.inf).logsumexp(-1)


def support_moments(advantages: Tensor, support: Tensor | None) -> tuple[Tensor, Tensor]:
    """Uniform mean and standard deviation (ddof 1) of each step's support, `[..., 1]` each.

    Exact for a step whose entries are all equal: std 0 and their value, whatever a rounded sum would say.
    """
    if support is None:
        support = torch.ones_like(advantages, dtype=torch.bool)
    count = support.sum(-1, keepdim=True)
    known = advantages.masked_fill(~support, 0.0)
    mean = known.sum(-1, keepdim=True) / count.clamp(min=1)
    squares = ((known - mean) ** 2).masked_fill(~support, 0.0).sum(-1, keepdim=True)
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    largest = advantages.masked_fill(~support, -torch.inf).amax(-1, keepdim=True)
    is_flat = largest == advantages.masked_fill(~support, torch.inf).amin(-1, keepdim=True)
    return torch.where(is_flat, largest, mean), std.masked_fill(is_flat, 0.0)


def shift_and_divisor(
    advantages: Tensor, support: Tensor | None, *, center: bool, scale: str, std_floor: float
) -> tuple[Tensor, Tensor]:
    """What `normalize` subtracts from each step's advantages and divides them by, `[..., 1]` each.

    The divisor of a step that would be divided by 0 is infinite: such a step keeps no advantage.
    """
    mean, std = support_moments(advantages, support)
    has_any = torch.ones_like(std) if support is None else support.any(-1, keepdim=True).to(std.dtype)
    return scaling(mean, std, has_any, center=center, scale=scale, std_floor=std_floor)


def scaling(
    mean: Tensor, std: Tensor, has_any: Tensor, *, center: bool, scale: str, std_floor: float
) -> tuple[Tensor, Tensor]:
    """`shift_and_divisor` from the moments of each step; `has_any` is 1 for one with a known entry, else 0."""
    shift = mean if center else torch.zeros_like(mean)
    if scale == "none":
        return shift, torch.ones_like(std)
    if scale == "global":
        std = (((std**2) * has_any).sum() / has_any.sum().clamp(min=1)).sqrt().expand_as(std)
    divisor = std.clamp(min=std_floor)
    return shift, divisor.masked_fill(divisor == 0, torch.inf)


def normalize(
    advantages: Tensor,
    support: Tensor | None = None,
    *,
    center: bool = True,
    scale: str = "per-step",
    std_floor: float = 0.0,
) -> Tensor:
    """Advantages centred and scaled at each step; the defaults are the paper's (4.4): mean 0 and std 1 of each step.

    A step whose advantages are all equal gets 0, never NaN.

    Args:
        advantages: `[..., V]`.
        support: bool `[..., V]`, True where the advantage is known; mean and std are of these entries. None for all.
            A step without any entry (padding) counts in no mean.
        center: subtract the uniform mean of the step's support. Changes nothing for the KL objective over a full one.
        scale: `none`, `per-step` (divide by the step's std, ddof 1) or `global` (by the root mean square of all stds).
        std_floor: >= 0, smallest std divided by; keeps steps to which the reward model is indifferent small.

    Returns:
        `[..., V]`, 0 outside the support.

    Raises:
        ValueError: `scale` is none of the three.
    """
    if scale not in ("none", "per-step", "global"):
        raise ValueError(f"scale: {scale!r} is not `none`, `per-step` or `global`")
    shift, divisor = shift_and_divisor(advantages, support, center=center, scale=scale, std_floor=std_floor)
    scaled = (advantages - shift) / divisor
    return scaled if support is None else scaled.masked_fill(~support, 0.0)
