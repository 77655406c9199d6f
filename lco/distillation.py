"""The dense distillation baselines, one value per trained token; the teacher's log-probabilities are the batch's dense
advantages (Eq. 12). Pure tensors.

Shapes: B sequences, N tokens of all sequences one after another, V vocabulary.
"""

import math

import torch
from torch import Tensor

from lco.baselines import Gkd, MiniLlm
from lco.log_probs import action_log_probs, kl_divergence
from lco.policy_gradients import clipped_surrogate, importance_ratio
from lco.rollout import Batch


def jensen_shannon(teacher_NV: Tensor, student_NV: Tensor, beta: float) -> Tensor:
    """JSD_b = b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q, of log-probabilities, `[N]` (arXiv 2306.13649).

    b = 0 is KL(p || q) and b = 1 is KL(q || p), the limits after division by b or 1 - b.
    """
    if beta == 0:
        return kl_divergence(teacher_NV, student_NV)
    if beta == 1:
        return kl_divergence(student_NV, teacher_NV)
    mixture_NV = torch.logaddexp(teacher_NV + math.log(beta), student_NV + math.log1p(-beta))
    return beta * kl_divergence(teacher_NV, mixture_NV) + (1 - beta) * kl_divergence(student_NV, mixture_NV)


def teacher_log_probs(batch: Batch) -> Tensor:
    """Log p_T(a|s) over the whole vocabulary, `[N, V]`."""
    assert batch.support is not None and batch.support.ids_NK is None
    return batch.support.advantages_NK


def gkd(logits_NV: Tensor, batch: Batch, config: Gkd) -> Tensor:
    """The generalised Jensen-Shannon divergence to the teacher (arXiv 2306.13649)."""
    return jensen_shannon(teacher_log_probs(batch), logits_NV.log_softmax(-1), config.jsd_beta)


def minillm(logits_NV: Tensor, batch: Batch, config: MiniLlm) -> Tensor:
    """KL(pi_theta || p_T) of the step plus PPO's surrogate on `later_log_ratios` (arXiv 2306.08543, Eqs. 3, 5, 7).

    Of a token drawn from the mixture with the teacher the divergence is weighted by pi_old / mixture; the surrogate's
    ratio is pi_theta / mixture. A demonstration's tokens have the loss -log pi_theta.
    """
    log_probs_NV = logits_NV.log_softmax(-1)
    actions_N = action_log_probs(logits_NV, batch.actions_N)
    loss_N = clipped_surrogate(importance_ratio(actions_N, batch, config), batch, config)
    if config.single_step:
        divergence_N = kl_divergence(log_probs_NV, teacher_log_probs(batch))
        loss_N = loss_N + (divergence_N if batch.importance_N is None else batch.importance_N * divergence_N)
    if batch.is_demonstration_B is None:
        return loss_N
    return torch.where(batch.is_demonstration_B.repeat_interleave(batch.num_tokens_B), -actions_N, loss_N)


def later_log_ratios(
    log_ratios_N: Tensor, num_tokens_B: Tensor, *, is_inclusive: bool, length_normalized: bool
) -> Tensor:
    """The sum, or mean, of each token's later values in its sequence, `[N]`; 0 at the last token unless inclusive.

    Args:
        log_ratios_N: log(p_T / pi_old) of the sampled tokens: constants, no gradient reaches the student through them.
        is_inclusive: count the token itself among the later ones, i >= t rather than i > t.
    """
    ends_B = num_tokens_B.cumsum(0)
    # float64, because the sums of early sequences cancel
    total_N = torch.cat([log_ratios_N.new_zeros(1).double(), log_ratios_N.double().cumsum(0)])
    end_N = ends_B.repeat_interleave(num_tokens_B)
    begin_N = torch.arange(len(log_ratios_N), device=log_ratios_N.device) + (0 if is_inclusive else 1)
    sums_N = (total_N[end_N] - total_N[begin_N]).to(log_ratios_N.dtype)
    return sums_N / (end_N - begin_N).clamp(min=1) if length_normalized else sums_N
