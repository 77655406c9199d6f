"""What computes in less memory, and what must not change by it: checkpointed blocks, bfloat16 products and weights."""

from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lco.config import StageConfig, TrainingStageConfig
from lco.policy import load_frozen, load_policy, load_trained
from lco.stage import Stage, Stopped
from lco.train import train
from tests.lco.launcher import metrics

IDS = torch.tensor([[4, 5, 6, 7, 8, 9], [9, 9, 4, 4, 5, 6]])
MASK = torch.ones_like(IDS)
LORA = {"rank": 4, "alpha": 8.0}


def stage_config(**changes):
    return TrainingStageConfig.model_validate({"device": "cpu"} | changes)


def loss_and_gradients(policy):
    """A made-up loss, its gradient in every parameter, and the bytes that autograd kept for it."""
    kept = {}

    def note(tensor):
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        logits_NV = policy.token_logits(IDS, MASK, MASK.bool())
        loss = (logits_NV.log_softmax(-1) * torch.arange(logits_NV.shape[1])).sum()
    loss.backward()
    gradients = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    parameters = {parameter.data_ptr() for parameter in policy.model.parameters()}
    return loss.detach(), gradients, sum(size for place, size in kept.items() if place not in parameters)


@pytest.mark.parametrize("changes", [{}, {"adapter": LORA}, {"precision": "bfloat16"}], ids=["plain", "lora", "bf16"])
def test_checkpointed_blocks_give_the_same_loss_and_gradient_and_keep_less(tiny_model, changes):
    plain, checkpointed = (
        loss_and_gradients(load_trained(tiny_model, stage_config(gradient_checkpointing=is_checkpointed, **changes)))
        for is_checkpointed in (False, True)
    )
    assert torch.equal(plain[0], checkpointed[0])
    assert plain[1].keys() == checkpointed[1].keys() and plain[1]
    for name, gradient in plain[1].items():
        assert torch.equal(gradient, checkpointed[1][name]), name
    assert checkpointed[2] < 0.5 * plain[2]


def test_checkpointing_leaves_dropout_off(tiny_model):
    policy = load_trained(tiny_model, stage_config(gradient_checkpointing=True))
    for module in policy.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.9
    first, second = (loss_and_gradients(policy)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, loss_and_gradients(load_policy(tiny_model, stage_config()))[0])
    assert not any(module.training for module in policy.model.modules())


def test_a_model_without_blocks_to_recompute_is_refused(tiny_model, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(ValueError, match="gradient_checkpointing: "):
        load_trained(tiny_model, stage_config(gradient_checkpointing=True))


def test_a_run_with_checkpointed_blocks_is_bit_for_bit_the_run_without(config_of, tmp_path):
    found = []
    for is_checkpointed in (False, True):
        with closing(Stage(tmp_path / str(is_checkpointed), [])) as stage:
            train(config_of("lco-kld", iterations=1, gradient_checkpointing=is_checkpointed), stage)
        found.append(metrics(stage.run_dir))
    assert found[0] == found[1]


def test_bfloat16_products_leave_weights_and_optimizer_state_float32(config_of, stage):
    stage.stop()
    with pytest.raises(Stopped):
        train(config_of("lco-kld", precision="bfloat16"), stage)
    (checkpoint,) = (stage.run_dir / "checkpoints").iterdir()
    for file in ("weights", "optimizer"):
        assert {tensor.dtype for tensor in load_file(checkpoint / f"{file}.safetensors").values()} == {torch.float32}
    assert load_file(checkpoint / "buffer.safetensors")["support.behaviour_logits_NK"].dtype == torch.float32


def test_frozen_models_are_held_in_half_the_memory_and_stay_close(tiny_model):
    full, half = (load_frozen(tiny_model, stage_config(frozen_weights=name)) for name in ("float32", "bfloat16"))
    sizes = [sum(p.nbytes for p in policy.model.parameters()) for policy in (full, half)]
    assert sizes[0] == 2 * sizes[1]
    assert not any(p.requires_grad for policy in (full, half) for p in policy.model.parameters())
    logits = [policy.token_logits(IDS, MASK, MASK.bool()) for policy in (full, half)]
    assert logits[1].dtype == torch.float32
    torch.testing.assert_close(logits[1], logits[0], rtol=0.1, atol=0.3)


def test_a_run_with_bfloat16_frozen_models_trains_float32_weights(config_of, stage):
    config = config_of("lco-kld", iterations=1, frozen_weights="bfloat16")
    train(config, stage)
    assert len(metrics(stage.run_dir)) == 2
    published = load_policy(stage.run_dir / "model", StageConfig(device="cpu"))
    assert {parameter.dtype for parameter in published.model.parameters()} == {torch.float32}
    assert not torch.equal(
        published.model.lm_head.weight, load_policy(Path(config.policy), StageConfig(device="cpu")).model.lm_head.weight
    )
