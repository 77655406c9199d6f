"""Gradient norms by the advantage's sign and the bound of Proposition 4.7, on a tiny model."""

from contextlib import closing
from pathlib import Path

import pytest
import torch

from lco.collection import collect
from lco.estimation import Estimator
from lco.losses import LOSSES
from lco.policy import load_policy
from lco.probes import advantage_gradients, step_gradient_bound
from lco.prompts import load_prompts
from lco.stage import Stage
from lco.train import _minibatch, train
from tests.lco.launcher import metrics

OBJECTIVES = ["lco-kld", "lco-kld-top-k", "lco-kld-sparse", "lco-lch", "lco-mse"]


@pytest.fixture
def step_of(config_of):
    """A policy off its behaviour policy, the algorithm, and the batch of one step."""

    def make(name, **algorithm_changes):
        config = config_of(name, steps_per_epoch=1)
        policy = load_policy(Path(config.policy), config)
        estimator = Estimator(config, policy)
        batch = estimator.batch(collect(config, policy, load_prompts(config.prompts), 0))
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
        return policy, estimator.algorithm.model_copy(update=algorithm_changes), _minibatch(config, batch, 0, 0)

    return make


def gradient_of(policy, algorithm, batch, weights_N):
    logits = policy.token_logits(batch.input_ids_BT, batch.attention_mask_BT, batch.mask_BT)
    loss = (LOSSES[type(algorithm)](logits, batch, algorithm) * weights_N).sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(policy.model.parameters()))])


def test_gradients_by_sign_are_those_of_the_mean_losses_of_their_tokens(step_of):
    policy, algorithm, batch = step_of("grpo")
    weights = [parameter.detach().clone() for parameter in policy.model.parameters()]
    found = advantage_gradients(policy, algorithm, batch, micro_batch_size=3)
    for name, chosen in (("positive", batch.advantages_N > 0), ("negative", batch.advantages_N < 0)):
        assert chosen.any()
        expected = gradient_of(policy, algorithm, batch, chosen / chosen.sum()).norm().item()
        assert found[f"train/grad_norm_{name}"] == pytest.approx(expected, rel=1e-4)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, policy.model.parameters(), strict=True))


def test_a_sign_that_no_token_has_has_no_gradient(step_of):
    policy, algorithm, batch = step_of("grpo")
    batch.advantages_N = batch.advantages_N.abs()
    found = advantage_gradients(policy, algorithm, batch, micro_batch_size=16)
    assert found["train/grad_norm_negative"] == 0.0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_proposition_4_7_bounds_the_measured_gradient_of_a_model(step_of, name):
    policy, algorithm, batch = step_of(name)
    weights = [parameter.detach().clone() for parameter in policy.model.parameters()]
    bound = step_gradient_bound(policy, algorithm, batch, micro_batch_size=5)
    norm = gradient_of(policy, algorithm, batch, batch.weights_N).norm().item()
    assert 0 < norm <= bound * (1 + 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(weights, policy.model.parameters(), strict=True))


def test_power_iterations_find_the_largest_singular_value_of_the_jacobian(step_of, monkeypatch):
    import lco.probes

    policy, algorithm, batch = step_of("lco-kld")
    batch = batch.select(torch.tensor([0, 1]))
    parameters = dict(policy.model.named_parameters())

    def logits(values):
        found = torch.func.functional_call(
            policy.model, values, kwargs={"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
        )
        return found.logits[..., : policy.vocab_size][batch.mask_BT].flatten()

    names = [name for name, value in parameters.items() if value.requires_grad]
    rows = []
    flat = logits(parameters)
    for value in flat:
        parts = torch.autograd.grad(value, [parameters[name] for name in names], retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    sigma = torch.linalg.matrix_norm(torch.stack(rows), 2).item()
    monkeypatch.setattr(lco.probes, "POWER_ITERATIONS", 12)
    bound = step_gradient_bound(policy, algorithm, batch, micro_batch_size=1)
    loss = LOSSES[type(algorithm)](flat.detach().view(-1, policy.vocab_size), batch, algorithm)
    limit = (batch.weights_N * (2 * loss).sqrt()).norm().item()
    assert bound == pytest.approx(sigma * limit, rel=0.03)


def test_a_run_that_is_probed_takes_the_same_steps(config_of, tmp_path):
    found = []
    for asked in (False, True):
        config = config_of("lco-kld", iterations=2, diagnostics={"advantage_gradients": asked, "gradient_bound": asked})
        with closing(Stage(tmp_path / str(asked), [])) as stage:
            train(config, stage)
        found.append(((stage.run_dir / "model/model.safetensors").read_bytes(), metrics(stage.run_dir)))
    assert found[0][0] == found[1][0]
    names = {"train/grad_norm_positive", "train/grad_norm_negative", "train/grad_bound"}
    for plain, probed in zip(found[0][1].values(), found[1][1].values(), strict=True):
        assert probed.keys() - plain.keys() == names
        assert plain["train/grad_norm"] <= probed["train/grad_bound"] * (1 + 1e-5)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("grpo", {}, "Proposition 4.7 is about the LCO objectives"),
        ("lco-mse", {"precision": "bfloat16"}, "need `precision` float32"),
        ("lco-mse", {"parallel": "fsdp2"}, "need `parallel` ddp"),
    ],
)
def test_a_bound_that_could_not_hold_is_refused(config_of, name, changes, message):
    with pytest.raises(ValueError, match=message):
        config_of(name, diagnostics={"gradient_bound": True}, **changes)


def test_gradients_by_the_sign_of_advantages_that_there_are_not_are_refused(config_of):
    with pytest.raises(ValueError, match="gkd has a teacher and no advantages"):
        config_of("gkd", diagnostics={"advantage_gradients": True})
