"""Batches of made-up tokens for the tests of pure tensors. V = 7 unless said otherwise."""

from collections.abc import Callable

import torch
from torch import Tensor

from lco.advantage_config import SparseAdvantage
from lco.advantages import log_mass_outside, top_k_support
from lco.algorithms import LcoKld, LcoLch, LcoMse
from lco.rollout import Batch, Support

V = 7
N = 40
BETA = 0.7
SPARSE = SparseAdvantage(estimator="reward")
FULL = {"name": "full"}
KLD = LcoKld(advantage=SPARSE, beta=BETA)
MSE = LcoMse(advantage=SPARSE, beta=BETA, support=FULL)
LCH = LcoLch(advantage=SPARSE, beta=BETA, support=FULL)


def randn(generator: torch.Generator, *shape: int, scale: float = 1.0) -> Tensor:
    """Float64 normal numbers."""
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def token_batch(
    behaviour_logits_NV: Tensor,
    advantages_NV: Tensor,
    actions_N: Tensor,
    *,
    ids_NK: Tensor | None = None,
    valid_NK: Tensor | None = None,
    tail_advantages_N: Tensor | None = None,
    is_agreed_N: Tensor | None = None,
    reference_logits_NV: Tensor | None = None,
) -> Batch:
    """A batch of N tokens that are one sequence each, with the advantages over the vocabulary or on a support."""
    num_tokens = len(actions_N)
    none_BT = torch.zeros(num_tokens, 2, dtype=torch.long)

    def at_actions(values_NV: Tensor) -> Tensor:
        return values_NV.gather(1, actions_N[:, None])[:, 0]

    support = Support(
        ids_NK=ids_NK,
        valid_NK=torch.ones_like(ids_NK, dtype=torch.bool) if ids_NK is not None and valid_NK is None else valid_NK,
        behaviour_logits_NK=behaviour_logits_NV if ids_NK is None else behaviour_logits_NV.gather(1, ids_NK),
        advantages_NK=advantages_NV if ids_NK is None else advantages_NV.gather(1, ids_NK),
        behaviour_logsumexp_N=behaviour_logits_NV.logsumexp(-1),
        behaviour_max_N=behaviour_logits_NV.amax(-1),
        tail_advantages_N=torch.zeros(num_tokens, dtype=torch.float64)
        if tail_advantages_N is None
        else tail_advantages_N,
        is_agreed_N=torch.zeros(num_tokens, dtype=torch.bool) if is_agreed_N is None else is_agreed_N,
    )
    reference_NV = behaviour_logits_NV if reference_logits_NV is None else reference_logits_NV
    return Batch(
        input_ids_BT=none_BT,
        attention_mask_BT=torch.ones_like(none_BT),
        mask_BT=torch.tensor([[True, False]] * num_tokens),
        num_tokens_B=torch.ones(num_tokens, dtype=torch.long),
        actions_N=actions_N,
        weights_N=torch.full((num_tokens,), 1 / num_tokens, dtype=torch.float64),
        behaviour_logprobs_N=at_actions(behaviour_logits_NV.log_softmax(-1)),
        advantages_N=at_actions(advantages_NV),
        reference_logprobs_N=at_actions(reference_NV.log_softmax(-1)),
        support=support,
    )


def gradient(function: Callable[[Tensor], Tensor], logits_NV: Tensor) -> Tensor:
    """d sum(loss_N) / d logits, by autograd."""
    variable = logits_NV.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(function(variable).sum(), variable)
    return found


def smallest_curvature(function: Callable[[Tensor], Tensor], logits_V: Tensor) -> float:
    """Smallest eigenvalue of the Hessian of one token's loss in its logits, by autograd."""
    hessian = torch.autograd.functional.hessian(lambda x: function(x[None]).sum(), logits_V)
    return float(torch.linalg.eigvalsh((hessian + hessian.T) / 2)[0])


def log_tail(logits_NV: Tensor, ids_NK: Tensor) -> Tensor:
    """log of the probability outside a support."""
    return log_mass_outside(logits_NV.log_softmax(-1), ids_NK)


def on_support(old: Tensor, advantages: Tensor, actions: Tensor, generator: torch.Generator, k: int = 3) -> Batch:
    """The batch of a top-k support of the old policy, with random advantages of the tail."""
    ids, valid = top_k_support([old], k, actions)
    return token_batch(
        old, advantages, actions, ids_NK=ids, valid_NK=valid, tail_advantages_N=randn(generator, len(actions))
    )
