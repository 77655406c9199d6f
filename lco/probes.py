"""Numbers of an optimizer step that cost passes of their own, measured before it on request (`DiagnosticsConfig`).

Gradients are taken here and left out of the step: `.grad` is as it was. Nothing of the run's randomness is touched.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lco.algorithms import Algorithm, LcoConfig, LcoLogitConfig
from lco.diagnostics import gradient_bound
from lco.losses import LOSSES
from lco.metrics import DiagnosticsConfig
from lco.policy import Policy
from lco.rollout import Batch

POWER_ITERATIONS = 3
"""From the loss's own gradient on; the estimate of sigma only rises."""
_LOGIT_CHANGE = 0.05  # of a token's logits, root mean square, by a step of the central difference


def probe(
    policy: Policy, algorithm: Algorithm, batch: Batch, micro_batch_size: int, config: DiagnosticsConfig
) -> dict[str, float]:
    """What is asked for of the step that this batch is about to make; nothing where nothing is asked for."""
    metrics: dict[str, float] = {}
    if config.advantage_gradients:
        metrics |= advantage_gradients(policy, algorithm, batch, micro_batch_size)
    if config.gradient_bound:
        assert isinstance(algorithm, LcoConfig)
        metrics["train/grad_bound"] = step_gradient_bound(policy, algorithm, batch, micro_batch_size)
    return metrics


def advantage_gradients(policy: Policy, algorithm: Algorithm, batch: Batch, micro_batch_size: int) -> dict[str, float]:
    """Norm of the gradient of the mean loss over the tokens with positive and with negative advantages; 0 for none."""
    loss_function = LOSSES[type(algorithm)]
    norms = {}
    for name, is_chosen_N in (("positive", batch.advantages_N > 0), ("negative", batch.advantages_N < 0)):
        count = is_chosen_N.sum().clamp(min=1)

        def weighted(micro: Batch, positions_N: Tensor) -> Tensor:
            chosen_N = is_chosen_N[positions_N]  # noqa: B023 - used up within this round
            return (loss_function(_logits(policy, micro), micro, algorithm) * chosen_N / count).sum()  # noqa: B023

        norms[f"train/grad_norm_{name}"] = _norm(_gradient(policy, batch, micro_batch_size, weighted))
    values = torch.stack(list(norms.values())).tolist()
    return dict(zip(norms, values, strict=True))


def step_gradient_bound(policy: Policy, algorithm: LcoConfig, batch: Batch, micro_batch_size: int) -> float:
    """The bound of Proposition 4.7 on the gradient norm of the step's loss (Eqs. 16-18 for all its tokens together).

    With z the logits of all tokens, J = dz/dtheta and sigma its largest singular value, the gradient J'(w g) of
    sum_i w_i L_i is at most sigma sqrt(sum_i (w_i c(L_i))^2), c(L) from `diagnostics.gradient_bound`. sigma comes from
    power iterations that begin at that gradient: each estimate is below sigma and above |J'(w g)| / |w g|, so what is
    reported is never below the gradient norm that it bounds. J u is a central difference.
    """
    loss_function = LOSSES[type(algorithm)]
    limits, lengths = [], []

    def weighted(micro: Batch, positions_N: Tensor) -> Tensor:
        logits_NV = _logits(policy, micro)
        leaf_NV = logits_NV.detach().requires_grad_(True)
        loss_N = loss_function(leaf_NV, micro, algorithm)
        (slope_NV,) = torch.autograd.grad((loss_N * micro.weights_N).sum(), leaf_NV)
        lengths.append(slope_NV.norm())
        limits.append(micro.weights_N * gradient_bound(loss_N.detach(), algorithm, _sizes(micro, algorithm)))
        return (logits_NV * slope_NV).sum()

    slopes = _gradient(policy, batch, micro_batch_size, weighted)
    limit, length = float(torch.cat(limits).norm()), float(torch.stack(lengths).norm())
    if length == 0 or (size := float(_norm(slopes))) == 0:
        return 0.0
    sigma = size / length
    for _ in range(POWER_ITERATIONS):
        direction = [part / size for part in slopes]
        scale = _LOGIT_CHANGE * len(batch.actions_N) ** 0.5 / sigma
        stretch, slopes = _squared(policy, batch, micro_batch_size, direction, scale)
        sigma = max(sigma, stretch)
        size = float(_norm(slopes))
        if size == 0:
            break
    return sigma * limit


def _sizes(batch: Batch, algorithm: LcoConfig) -> Tensor:
    """Entries of each token's support, `[N]`."""
    support = batch.support
    assert support is not None
    if isinstance(algorithm, LcoLogitConfig) and support.valid_NK is not None:
        return support.valid_NK.sum(-1)
    return torch.full_like(batch.actions_N, support.advantages_NK.shape[-1])


def _trained(policy: Policy) -> list[Tensor]:
    return [parameter for parameter in policy.model.parameters() if parameter.requires_grad]


def _micro_batches(batch: Batch, micro_batch_size: int) -> Iterator[tuple[Batch, Tensor]]:
    """The micro-batches, and the positions of their tokens in the batch."""
    device, num_sequences = batch.actions_N.device, len(batch.num_tokens_B)
    pieces = torch.arange(len(batch.actions_N), device=device).split(batch.num_tokens_B.tolist())
    for indices_B in torch.arange(num_sequences, device=device).split(micro_batch_size):
        yield batch.select(indices_B), torch.cat(pieces[int(indices_B[0]) : int(indices_B[-1]) + 1])


def _logits(policy: Policy, micro: Batch) -> Tensor:
    return policy.token_logits(micro.input_ids_BT, micro.attention_mask_BT, micro.mask_BT)


def _gradient(
    policy: Policy, batch: Batch, micro_batch_size: int, scalar_of: Callable[[Batch, Tensor], Tensor]
) -> list[Tensor]:
    """The gradient of the sum over micro-batches of a scalar, made of the micro-batch and its tokens' positions."""
    parameters = _trained(policy)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for micro, positions_N in _micro_batches(batch, micro_batch_size):
        found = torch.autograd.grad(scalar_of(micro, positions_N), parameters, allow_unused=True)
        total = [sum_ if part is None else sum_ + part for sum_, part in zip(total, found, strict=True)]
    return total


def _squared(
    policy: Policy, batch: Batch, micro_batch_size: int, direction: list[Tensor], scale: float
) -> tuple[float, list[Tensor]]:
    """|J u| and J'J u of a direction u of length 1, one micro-batch at a time; the weights end as they began.

    Args:
        scale: length of the step to either side of the central difference.
    """
    parameters = _trained(policy)
    kept = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def put(shift: float) -> None:
        for parameter, weight, part in zip(parameters, kept, direction, strict=True):
            parameter.copy_(weight + shift * part if shift else weight)

    lengths = []

    def along(micro: Batch, positions_N: Tensor) -> Tensor:
        sides = []
        with torch.no_grad():
            for sign in (1, -1):
                put(sign * scale)
                sides.append(_logits(policy, micro))
        put(0)  # before the graph is made, which must not see its weights change
        pushed_NV = (sides[0] - sides[1]) / (2 * scale)
        lengths.append(pushed_NV.norm())
        return (_logits(policy, micro) * pushed_NV).sum()

    try:
        squared = _gradient(policy, batch, micro_batch_size, along)
    finally:
        put(0)
    return float(torch.stack(lengths).norm()), squared


def _norm(tensors: list[Tensor]) -> Tensor:
    length: Tensor = torch.stack([tensor.norm() for tensor in tensors]).norm()
    return length
