"""The schedule, and one guarded optimizer step."""

import math

import pytest
import torch
from torch import nn

from lco.config import Optimizer
from lco.optimization import Fitting, learning_rate, make_optimizer
from lco.stage import NonFinite


def fitting(**changes):
    torch.manual_seed(0)
    return Fitting(nn.Linear(3, 1), Optimizer(learning_rate=0.1, **changes), total_steps=10)


def loss_of(model, scale=1.0):
    return lambda: (model(torch.ones(2, 3)) * scale).sum()


def test_the_schedule_warms_up_linearly_and_then_follows_its_name():
    rates = {
        name: [
            learning_rate(Optimizer(learning_rate=1.0, schedule=name, warmup_steps=4), step, 12) for step in range(12)
        ]
        for name in ("constant", "linear", "cosine")
    }
    for found in rates.values():
        assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates["constant"][4:] == [1.0] * 8
    assert rates["linear"][4:] == pytest.approx([1 - k / 8 for k in range(8)])
    assert rates["cosine"][4:] == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
    assert learning_rate(Optimizer(learning_rate=1.0, schedule="linear"), 12, 12) == 0.0
    assert learning_rate(Optimizer(learning_rate=1.0, schedule="cosine", warmup_steps=12), 11, 12) == 1.0


def test_micro_batches_add_up_to_one_gradient():
    whole, parts = fitting(), fitting()
    first = whole.update(0, [loss_of(whole.model, 3.0)])
    second = parts.update(0, [loss_of(parts.model, scale) for scale in (1.0, 2.0)])
    assert first == pytest.approx(second)
    torch.testing.assert_close(whole.model.weight, parts.model.weight)


def test_the_gradient_is_clipped_and_its_norm_before_that_reported():
    clipped, free = fitting(max_grad_norm=1.0), fitting(max_grad_norm=0.0)
    norm = math.sqrt(3 * 2000.0**2 + 2000.0**2)
    for one in (clipped, free):
        assert one.update(0, [loss_of(one.model, 1000.0)])["train/grad_norm"] == pytest.approx(norm)
    gradient = torch.cat([p.grad.flatten() for p in clipped.model.parameters()])
    assert gradient.norm().item() == pytest.approx(1.0)
    assert torch.cat([p.grad.flatten() for p in free.model.parameters()]).norm().item() == pytest.approx(norm)


def test_matrices_decay_and_vectors_do_not():
    optimizer = make_optimizer(nn.Linear(3, 1), Optimizer(weight_decay=0.1))
    assert [(group["weight_decay"], [p.ndim for p in group["params"]]) for group in optimizer.param_groups] == [
        (0.1, [2]),
        (0.0, [1]),
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad):
    one = fitting()
    one.update(0, [loss_of(one.model)])
    weights = one.model.weight.detach().clone()
    state = {key: value.clone() for key, value in next(iter(one.optimizer.state.values())).items()}
    metrics = one.update(1, [loss_of(one.model), loss_of(one.model, bad)])
    assert not math.isfinite(metrics["train/loss"])
    assert one.num_skipped_in_a_row == 1
    assert torch.equal(one.model.weight, weights)
    for key, value in next(iter(one.optimizer.state.values())).items():
        assert torch.equal(value, state[key])


def test_three_steps_in_a_row_that_are_not_finite_stop_the_run():
    one = fitting()
    for _ in range(2):
        for step in range(2):
            one.update(step, [loss_of(one.model, math.nan)])
        one.update(2, [loss_of(one.model)])
        assert one.num_skipped_in_a_row == 0
    with pytest.raises(NonFinite, match="3 steps in a row, last at step 6"):
        for step in range(3, 9):
            one.update(step, [loss_of(one.model, math.nan)])
