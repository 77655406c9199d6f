"""The head of a language model, applied to some tokens at a time: no tensor of all tokens by the vocabulary exists.

`chunked_loss` computes the gradient in the forward pass, chunk by chunk, and keeps only that of the hidden states and
of the head; `chunked_log_probs` gives a value per token and computes the chunks again in the backward pass. Both equal
what autograd makes of `Head.logits` on all tokens, up to the order of sums.

Shapes: N tokens, C tokens of a chunk, H hidden width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lco.log_probs import action_log_probs


@dataclass(frozen=True, slots=True)
class Head:
    """The last linear layer of a model, and what its architecture does to the logits after it."""

    weight_VH: Tensor
    """Of every row, those that no token has included."""
    bias_V: Tensor | None
    vocab_size: int
    """Rows that are tokens."""
    products: torch.dtype
    """Type of the matrix products."""
    scale: float = 1.0
    """Multiplies the logits."""
    softcap: float = 0.0
    """Bounds them: c tanh(z / c). 0 for no bound."""

    def cast(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the type of the products."""
        return self.weight_VH.to(self.products), None if self.bias_V is None else self.bias_V.to(self.products)

    def finish(self, raw_NV: Tensor) -> Tensor:
        """Float32 logits over the tokens of the vocabulary from what the linear layer gave."""
        logits_NV = raw_NV[:, : self.vocab_size]
        if self.scale != 1:
            logits_NV = logits_NV * self.scale
        if self.softcap:
            logits_NV = (logits_NV / self.softcap).tanh() * self.softcap
        return logits_NV.float()

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Float32 logits `[N, V]` of hidden states."""
        return self.finish(nn.functional.linear(hidden_NH.to(self.products), *self.cast()))


def head_of(model: PreTrainedModel, vocab_size: int, products: torch.dtype) -> Head:
    """The head of a model.

    Args:
        vocab_size: its rows that are tokens.
        products: type of the matrix products; bfloat16 under autocast, else the weights' own.

    Raises:
        ValueError: the head is no linear layer.
    """
    layer = model.get_output_embeddings()
    if type(layer) is not nn.Linear:
        raise ValueError(f"loss_chunk_tokens: the model's head is no plain linear layer ({type(layer).__name__})")
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    return Head(
        layer.weight,
        layer.bias,
        vocab_size,
        torch.bfloat16 if products == torch.bfloat16 else layer.weight.dtype,
        float(scale),
        float(getattr(config, "final_logit_softcapping", None) or 0),
    )


def chunks(num_tokens: int, chunk_tokens: int) -> Iterator[slice]:
    """Consecutive tokens, `chunk_tokens` at a time."""
    for start in range(0, num_tokens, chunk_tokens):
        yield slice(start, min(start + chunk_tokens, num_tokens))


def chunked_loss(
    head: Head, hidden_NH: Tensor, chunk_tokens: int, loss_of: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """The sum over chunks of a scalar of each chunk's logits; its gradient is computed on the way.

    Args:
        loss_of: gets float32 logits `[C, V]` and the positions of their tokens; gives a scalar, weighted already. A
            token's share may depend on no other chunk's logits.
    """
    loss: Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, head, chunk_tokens, loss_of
    )
    return loss


def chunked_log_probs(
    head: Head,
    hidden_NH: Tensor,
    actions_N: Tensor,
    chunk_tokens: int,
    observe: Callable[[Tensor, slice], None] | None = None,
) -> Tensor:
    """log pi(a_t|s_t) of the given tokens, `[N]`, differentiable in the hidden states and the head.

    Args:
        observe: is shown the logits of every chunk, once.
    """
    values_N: Tensor = _ChunkedLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, head, actions_N, chunk_tokens, observe
    )
    return values_N


class _Gradients:
    """Gradients of a linear head, summed over chunks in float32."""

    def __init__(self, hidden_NH: Tensor, head: Head, wanted: tuple[bool, ...]) -> None:
        self._head = head
        wide = torch.promote_types(head.weight_VH.dtype, torch.float32)
        self.hidden_NH = torch.empty_like(hidden_NH) if wanted[0] else None
        self.weight_VH = torch.zeros_like(head.weight_VH, dtype=wide) if wanted[1] else None
        self.bias_V = torch.zeros_like(head.bias_V, dtype=wide) if wanted[2] and head.bias_V is not None else None
        self.is_wanted = any(wanted[:3])

    def add(self, slopes_CV: Tensor, hidden_CH: Tensor, weight_VH: Tensor, rows: slice) -> None:
        """Takes in what the loss gives for the linear layer's outputs of one chunk."""
        if self.hidden_NH is not None:
            self.hidden_NH[rows] = (slopes_CV @ weight_VH).to(self.hidden_NH.dtype)
        if self.weight_VH is not None:
            if slopes_CV.dtype == self.weight_VH.dtype:
                self.weight_VH.addmm_(slopes_CV.T, hidden_CH)
            else:
                self.weight_VH += slopes_CV.T @ hidden_CH
        if self.bias_V is not None:
            self.bias_V += slopes_CV.sum(0)

    def all(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients in the types of what they belong to."""
        weight = None if self.weight_VH is None else self.weight_VH.to(self._head.weight_VH.dtype)
        bias = None if self.bias_V is None or self._head.bias_V is None else self.bias_V.to(self._head.bias_V.dtype)
        return self.hidden_NH, weight, bias


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        head: Head,
        chunk_tokens: int,
        loss_of: Callable[[Tensor, slice], Tensor],
    ) -> Tensor:
        gradients = _Gradients(hidden_NH, head, ctx.needs_input_grad)
        cast = head.cast()
        total = torch.zeros((), dtype=torch.promote_types(hidden_NH.dtype, torch.float32), device=hidden_NH.device)
        for rows in chunks(len(hidden_NH), chunk_tokens):
            hidden_CH = hidden_NH[rows].to(head.products)
            raw_CV = nn.functional.linear(hidden_CH, *cast)
            with torch.enable_grad():
                loss = loss_of(head.finish(raw_CV.requires_grad_(gradients.is_wanted)), rows)
            total += loss.detach()
            if gradients.is_wanted:
                (slopes_CV,) = torch.autograd.grad(loss, raw_CV)
                gradients.add(slopes_CV, hidden_CH, cast[0], rows)
        ctx.gradients = gradients
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.gradients.all()
        del ctx.gradients  # it is scaled in place, so it serves once
        for gradient in found:
            if gradient is not None:
                gradient.mul_(slope)
        return (*found, None, None, None)


class _ChunkedLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        head: Head,
        actions_N: Tensor,
        chunk_tokens: int,
        observe: Callable[[Tensor, slice], None] | None,
    ) -> Tensor:
        cast = head.cast()
        values = []
        for rows in chunks(len(hidden_NH), chunk_tokens):
            logits_CV = head.finish(nn.functional.linear(hidden_NH[rows].to(head.products), *cast))
            if observe is not None:
                observe(logits_CV, rows)
            values.append(action_log_probs(logits_CV, actions_N[rows]))
        ctx.save_for_backward(hidden_NH, actions_N)
        ctx.head, ctx.chunk_tokens = head, chunk_tokens
        return torch.cat(values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, actions_N = ctx.saved_tensors
        gradients = _Gradients(hidden_NH, ctx.head, ctx.needs_input_grad)
        cast = ctx.head.cast()
        for rows in chunks(len(hidden_NH), ctx.chunk_tokens):
            hidden_CH = hidden_NH[rows].to(ctx.head.products)
            raw_CV = nn.functional.linear(hidden_CH, *cast)
            with torch.enable_grad():
                values_C = action_log_probs(ctx.head.finish(raw_CV.requires_grad_(True)), actions_N[rows])
                (slopes_CV,) = torch.autograd.grad(values_C, raw_CV, slopes_N[rows])
            gradients.add(slopes_CV, hidden_CH, cast[0], rows)
        return (*gradients.all(), None, None, None, None)
