"""An optimizer step's losses with head and loss applied to some tokens at a time, for every algorithm.

Most losses give a token's value from its own logits: head, loss and gradient are made chunk by chunk. A loss whose
ratio is the completion's (RLOO, GSPO, GRPO's sequence level) needs all its tokens' log-probabilities first.

Shapes: N tokens, C tokens of a chunk, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lco.algorithms import Algorithm
from lco.diagnostics import token_sums
from lco.head import Head, chunked_log_probs, chunked_loss
from lco.losses import LOSSES
from lco.policy_gradients import couples_tokens
from lco.rollout import Batch

Sums = dict[str, Tensor]


def chunked_step_loss(
    head: Head,
    hidden_NH: Tensor,
    batch: Batch,
    algorithm: Algorithm,
    chunk_tokens: int,
    prepared: Callable[[Batch], Batch] = lambda chunk: chunk,
) -> tuple[Tensor, Sums]:
    """The weighted sum of a micro-batch's losses, and the sums of `diagnostics.token_sums`.

    Args:
        prepared: gives a chunk's batch what is made for it alone, see `Support`.
    """
    loss_function = LOSSES[type(algorithm)]
    sums: Sums = {}

    def observe(logits_CV: Tensor, chunk: Batch) -> None:
        for name, value in token_sums(logits_CV.detach(), chunk, algorithm).items():
            sums[name] = sums[name] + value if name in sums else value

    def loss_of(logits_CV: Tensor, rows: slice) -> Tensor:
        chunk = prepared(batch.tokens(rows))
        observe(logits_CV, chunk)
        return (loss_function(logits_CV, chunk, algorithm) * chunk.weights_N).sum()

    if not couples_tokens(algorithm):
        return chunked_loss(head, hidden_NH, chunk_tokens, loss_of), sums

    log_probs_N = chunked_log_probs(
        head,
        hidden_NH,
        batch.actions_N,
        chunk_tokens,
        lambda logits_CV, rows: observe(logits_CV, batch.tokens(rows)),
    )
    pairs_N2 = two_entries(log_probs_N)
    first = replace(batch, actions_N=torch.zeros_like(batch.actions_N))
    if "clip_fraction" in sums:  # a chunk knows no completion's ratio
        sums["clip_fraction"] = token_sums(pairs_N2.detach(), first, algorithm)["clip_fraction"]
    return (loss_function(pairs_N2, first, algorithm) * batch.weights_N).sum(), sums


def two_entries(log_probs_N: Tensor) -> Tensor:
    """Logits `[N, 2]` of a vocabulary of two: the token, and everything else. The first's log-probability is as given.

    To a loss that reads nothing but log pi(a_t|s_t) they are as good as the logits over the vocabulary.
    """
    certain = -torch.finfo(log_probs_N.dtype).tiny
    others_N = torch.log(-torch.expm1(log_probs_N.clamp(max=certain)))
    return torch.stack([log_probs_N, others_N], 1)
