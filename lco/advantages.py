"""Rewards or reward models -> advantages over tokens and vocabulary (Eqs. 11-13). Pure tensors.

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


def z_scored(values_N: Tensor) -> Tensor:
    """(x - mean) / std over all values, std with ddof 1; 0 where they are all equal."""
    if bool((values_N == values_N[0]).all()):  # their rounded mean may differ from them: no division by that
        return torch.zeros_like(values_N)
    return (values_N - values_N.mean()) / values_N.std()


def dpo_advantages(dpo_logits_NV: Tensor, reference_logits_NV: Tensor, beta_dpo: float) -> Tensor:
    """beta_dpo log(pi_dpo(a|s) / pi_ref(a|s)) for every token (Eq. 13, with its constant factor)."""
    return beta_dpo * (dpo_logits_NV.log_softmax(-1) - reference_logits_NV.log_softmax(-1))


def logprob_advantages(logits_NV: Tensor) -> Tensor:
    """Log pi_phi(a|s) for every token (Eq. 12): Q - V with V the logsumexp of the logits."""
    return logits_NV.log_softmax(-1)


def reference_kl_advantages(behaviour_logits_NV: Tensor, initial_logits_NV: Tensor, weight: float) -> Tensor:
    """-weight log(pi_old / pi_0) for every token: the pull to the starting policy that `reference_kl` adds.

    With A = beta_dpo log(pi_dpo / pi_ref), weight = lambda beta_dpo and pi_ref = pi_0, iterating Eq. 6 has the fixed point
    pi_0^(1 - 1/lambda) pi_dpo^(1/lambda); for lambda = 1 and beta = beta_dpo one step reaches pi_dpo itself.
    """
    return -weight * (behaviour_logits_NV.log_softmax(-1) - initial_logits_NV.log_softmax(-1))


def sparse_advantages(
    advantages_N: Tensor, actions_N: Tensor, behaviour_logits_NV: Tensor, fill: str
) -> tuple[Tensor, Tensor]:
    """The sampled token's advantage spread over the vocabulary (Eq. 11), and the advantage of every other entry.

    Args:
        fill: `zero`: others get 0. `zero-mean`: the sampled token gets A (1 - p), the others the one value that makes the
            mean under the behaviour policy 0 unless their mass is below 0.1 (the authors' `estimate_vocab_adv`).

    Returns:
        advantages_NV and the fill's value per token, `[N]`.
    """
    if fill == "zero-mean":
        probs_N = behaviour_logits_NV.softmax(-1).gather(1, actions_N[:, None])[:, 0]
        advantages_N = advantages_N * (1 - probs_N)
        others_N = -probs_N * advantages_N / (1 - probs_N).clamp(min=_MIN_UNKNOWN_MASS)
    else:
        others_N = torch.zeros_like(advantages_N)
    advantages_NV = others_N[:, None].expand_as(behaviour_logits_NV).clone()
    return advantages_NV.scatter(1, actions_N[:, None], advantages_N[:, None]), others_N


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


def support_moments(advantages_NK: Tensor, valid_NK: Tensor | None) -> tuple[Tensor, Tensor]:
    """Uniform mean and standard deviation (ddof 1) of each token's support, `[N, 1]` each.

    Exact for a token whose entries are all equal: std 0 and their value, whatever a rounded sum would say.
    """
    if valid_NK is None:
        valid_NK = torch.ones_like(advantages_NK, dtype=torch.bool)
    count_N1 = valid_NK.sum(1, keepdim=True)
    known_NK = advantages_NK.masked_fill(~valid_NK, 0.0)
    mean_N1 = known_NK.sum(1, keepdim=True) / count_N1
    squares_N1 = ((known_NK - mean_N1) ** 2).masked_fill(~valid_NK, 0.0).sum(1, keepdim=True)
    std_N1 = (squares_N1 / (count_N1 - 1).clamp(min=1)).sqrt()
    largest_N1 = advantages_NK.masked_fill(~valid_NK, -torch.inf).amax(1, keepdim=True)
    is_flat_N1 = largest_N1 == advantages_NK.masked_fill(~valid_NK, torch.inf).amin(1, keepdim=True)
    return torch.where(is_flat_N1, largest_N1, mean_N1), std_N1.masked_fill(is_flat_N1, 0.0)


def normalized(
    advantages_NK: Tensor,
    tail_advantages_N: Tensor,
    valid_NK: Tensor | None,
    *,
    center: bool,
    scale: str,
    std_floor: float,
) -> tuple[Tensor, Tensor]:
    """Advantages centred and scaled per token, the tail's by the same mean and std.

    A token whose advantages are all equal keeps 0 (std 0 divides nothing).

    Args:
        scale: `none`, `per-step` (this token's std) or `global` (root mean square of all tokens' std).
    """
    mean_N1, std_N1 = support_moments(advantages_NK, valid_NK)
    if not center:
        mean_N1 = torch.zeros_like(mean_N1)
    if scale == "none":
        divisor_N1 = torch.ones_like(std_N1)
    else:
        if scale == "global":
            std_N1 = (std_N1**2).mean().sqrt().expand_as(std_N1)
        divisor_N1 = std_N1.clamp(min=std_floor)
    is_flat_N1 = divisor_N1 == 0
    divisor_N1 = divisor_N1.masked_fill(is_flat_N1, 1.0)
    scaled_NK = ((advantages_NK - mean_N1) / divisor_N1).masked_fill(is_flat_N1, 0.0)
    scaled_tail_N = ((tail_advantages_N - mean_N1[:, 0]) / divisor_N1[:, 0]).masked_fill(is_flat_N1[:, 0], 0.0)
    return scaled_NK, scaled_tail_N
