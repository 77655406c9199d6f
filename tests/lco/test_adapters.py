"""LoRA and QLoRA: the adapter alone is trained and kept, its base is the reference, and what is published is plain."""

import gc
import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from lco.adapters import ADAPTER, quantization
from lco.config import DpoConfig, Lora, SftConfig, StageConfig, TrainingStageConfig
from lco.dpo import tune
from lco.estimation import Estimator
from lco.initial import initial_policy
from lco.policy import Policy, have_same_weights, load_policy, load_trained, named_weights
from lco.reward_model import load_reward_model, save_reward_model
from lco.rollout import sample
from lco.sft import warm_up
from lco.stage import Stage, Stopped
from lco.train import train
from tests.lco.conftest import TINY
from tests.lco.launcher import metrics

CPU = StageConfig(device="cpu")
LORA = {"rank": 4, "alpha": 8.0}
IDS = torch.tensor([[4, 5, 6, 7, 8, 9]])
KINDS = ["none", "nf4"]


def stage_config(quantization="none", **changes):
    adapter = LORA | {"quantization": quantization}
    return TrainingStageConfig.model_validate({"device": "cpu", "adapter": adapter} | changes)


def logits(policy):
    with torch.no_grad():
        return policy.token_logits(IDS, torch.ones_like(IDS), torch.ones_like(IDS).bool())


@pytest.fixture(params=KINDS)
def adapted(request, tiny_model):
    """A policy whose adapter does something."""
    policy = load_trained(tiny_model, stage_config(request.param))
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in named_weights(policy.model).values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
    return policy


def test_an_adapter_changes_nothing_before_the_first_step(tiny_model):
    assert torch.equal(logits(load_trained(tiny_model, stage_config())), logits(load_policy(tiny_model, CPU)))


def test_the_adapter_alone_is_trained(adapted):
    trained = named_weights(adapted.model)
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in trained.items())
    assert len(trained) == 2 * 7  # q k v o gate up down
    assert not adapted.model.training and not any(module.training for module in adapted.model.modules())


def test_the_adapter_off_is_the_base_in_the_same_memory(adapted):
    base = adapted.base
    assert base.model is adapted.model
    off, on = logits(base), logits(adapted)
    assert not torch.allclose(off, on)
    assert torch.equal(logits(adapted), on)  # switched on again
    assert len(named_weights(adapted.model)) == 2 * 7  # and trained again
    if not adapted.is_quantized:
        plain = load_policy(Path(adapted.model.config._name_or_path), CPU)
        torch.testing.assert_close(off, logits(plain), rtol=0, atol=0)
        assert have_same_weights(base, plain) and not have_same_weights(adapted, base)


def test_the_base_is_never_trained(adapted):
    with pytest.raises(AssertionError, match="frozen"):
        adapted.base.token_logits(IDS, torch.ones_like(IDS), torch.ones_like(IDS).bool())


def test_no_gradient_reaches_the_base(adapted):
    adapted.token_logits(IDS, torch.ones_like(IDS), torch.ones_like(IDS).bool()).sum().backward()
    for name, parameter in adapted.model.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


def test_what_is_saved_is_a_plain_model_of_the_same_function_with_the_adapter_beside_it(adapted, tmp_path):
    adapted.save(tmp_path)
    plain = load_policy(tmp_path, CPU)
    assert type(plain.model) is type(adapted.model) and not hasattr(plain.model, "peft_config")
    torch.testing.assert_close(logits(plain), logits(adapted), rtol=1e-4, atol=1e-4)
    assert getattr(plain.model.config, "quantization_config", None) is None
    assert all(path.suffix in (".json", ".safetensors", ".md") for path in tmp_path.rglob("*") if path.is_file())
    assert all("lora_" in name for name in load_file(tmp_path / ADAPTER / "adapter_model.safetensors"))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
def test_peft_reads_the_adapter_onto_the_base(adapted, tiny_model, tmp_path):
    from peft import PeftModel

    adapted.save(tmp_path)
    kind = "nf4" if adapted.is_quantized else "none"
    base = load_policy(tiny_model, CPU, quantized=quantization(Lora(quantization=kind), torch.float32))
    read = PeftModel.from_pretrained(base.model, tmp_path / ADAPTER)
    with torch.enable_grad():  # or bitsandbytes computes in bfloat16
        found = read.train()(input_ids=IDS).logits[0, :, : adapted.vocab_size].detach()
    torch.testing.assert_close(found, logits(adapted), rtol=1e-5, atol=1e-5)


def test_saving_leaves_the_policy_as_it_is(adapted, tmp_path):
    before = logits(adapted)
    adapted.save(tmp_path)
    assert torch.equal(logits(adapted), before)


def test_a_quantized_reward_model_keeps_the_reference_that_training_saw(tiny_model, tmp_path):
    policy = load_trained(tiny_model, stage_config("nf4"))
    save_reward_model(policy, tiny_model, 0.1, tmp_path)
    loaded = load_reward_model(tmp_path, CPU)
    torch.testing.assert_close(logits(loaded.reference), logits(policy.base), rtol=1e-4, atol=1e-4)
    assert have_same_weights(loaded.policy, loaded.reference)  # the adapter is still zero
    assert not have_same_weights(loaded.reference, load_policy(tiny_model, CPU))


def test_sampling_goes_through_the_adapter(adapted):
    from lco.config import Sampling

    prompts = [adapted.encode_prompt(f"{n}+2=") for n in range(6)]
    sampling = Sampling(max_tokens=12)
    on, off = (sample(policy, prompts, list(range(6)), sampling) for policy in (adapted, adapted.base))
    assert on != off


def test_targets_that_the_model_lacks_are_refused(tiny_model):
    config = stage_config().model_copy(update={"adapter": Lora(target_modules=("query",))})
    with pytest.raises(ValueError, match=r"adapter\.target_modules: no linear layer of the model is called"):
        load_trained(tiny_model, config)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_head_and_embedding_get_no_adapter(tiny_model, name):
    config = stage_config().model_copy(update={"adapter": Lora(target_modules=(name,))})
    with pytest.raises(ValueError, match=f"{name} is the head, or no linear layer"):
        load_trained(tiny_model, config)


def test_a_model_of_transposed_layers_is_merged_too(tmp_path):
    """GPT-2's linear layers hold their weight the other way around."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = initial_policy(TINY, CPU).tokenizer
    sizes = {"vocab_size": 20, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1, resid_pdrop=0.5))
    Policy(gpt2, tokenizer).save(tmp_path / "base")
    policy = load_trained(tmp_path / "base", stage_config())
    with torch.no_grad():
        for parameter in named_weights(policy.model).values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    policy.save(tmp_path / "merged")
    torch.testing.assert_close(logits(load_policy(tmp_path / "merged", CPU)), logits(policy), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(policy.base), logits(policy))


def test_named_targets_get_an_adapter_and_the_others_none(tiny_model):
    config = stage_config().model_copy(update={"adapter": Lora(target_modules=("q_proj", "v_proj"))})
    names = {name.split(".")[-4] for name in named_weights(load_trained(tiny_model, config).model)}
    assert {name for name in names if name.endswith("proj")} == names
    assert len(named_weights(load_trained(tiny_model, config).model)) == 4


def test_missing_bitsandbytes_is_said(tiny_model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="nf4 needs bitsandbytes"):
        load_trained(tiny_model, stage_config("nf4"))


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_may_be_bfloat16_and_the_adapter_is_float32_always(tiny_model, kind):
    policy = load_trained(tiny_model, stage_config(kind, frozen_weights="bfloat16"))
    dtypes = {parameter.dtype for name, parameter in policy.model.named_parameters() if "lora_" not in name}
    assert dtypes == {torch.bfloat16} | ({torch.uint8} if kind == "nf4" else set())
    assert {weight.dtype for weight in named_weights(policy.model).values()} == {torch.float32}
    torch.testing.assert_close(logits(policy), logits(load_trained(tiny_model, stage_config(kind))), rtol=0.1, atol=0.3)


@pytest.mark.parametrize(("name", "kind"), [("lco-kld", "none"), ("lco-kld", "nf4"), ("grpo", "none")])
def test_a_run_with_an_adapter_resumes_bit_for_bit_and_its_checkpoints_hold_the_adapter_alone(
    config_of, tmp_path, name, kind
):
    config = config_of(name, iterations=2, adapter=LORA | {"quantization": kind}, optimizer={"learning_rate": 0.1})
    with closing(Stage(tmp_path / "whole", [])) as whole:
        train(config, whole)
    with closing(Stage(tmp_path / "first", [])) as first:
        first.stop()
        with pytest.raises(Stopped):
            train(config, first)
    (checkpoint,) = (tmp_path / "first/checkpoints").iterdir()
    assert all("lora_" in weight for weight in load_file(checkpoint / "weights.safetensors"))
    with closing(Stage(tmp_path / "second", [first.run_dir])) as second:
        train(config, second)
    assert metrics(first.run_dir, second.run_dir) == metrics(whole.run_dir)
    for file in ("model.safetensors", f"{ADAPTER}/adapter_model.safetensors"):
        assert (whole.run_dir / "model" / file).read_bytes() == (second.run_dir / "model" / file).read_bytes()


def test_the_reference_of_a_run_with_an_adapter_is_its_own_memory(config_of, tiny_model, tmp_path):
    """The reward model's reference equals the start: only the tuned model is a second copy of the weights."""
    config = config_of("lco-kld", adapter=LORA)
    policy = load_trained(Path(config.policy), config)
    estimator = Estimator(config, policy)
    assert estimator.scorer.initial is estimator.scorer.reference and estimator.scorer.initial.model is policy.model
    gc.collect()
    models = {id(m) for m in (policy.model, estimator.scorer.reward_model.model, estimator.scorer.reference.model)}
    assert len(models) == 2


def test_supervised_and_preference_stages_train_adapters(tiny_model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+1=", "completion": f"{n + 1}"}) + "\n" for n in range(8)))
    common = {"policy": str(tiny_model), "adapter": LORA, "optimizer": {"learning_rate": 0.01}, "device": "cpu"}
    sft = SftConfig.model_validate(
        common | {"prompts": {"name": "jsonl", "path": str(rows)}, "steps": 30, "batch_size": 8}
    )
    with closing(Stage(tmp_path / "sft", [])) as stage:
        warm_up(sft, stage)
    losses = [values["train/loss"] for values in metrics(stage.run_dir).values()]
    assert losses[-1] < 0.7 * losses[0]
    assert (stage.run_dir / "model" / ADAPTER / "adapter_config.json").exists()
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({"prompt": f"{n}+1=", "chosen": f"{n + 1}", "rejected": "0"}) + "\n" for n in range(8))
    )
    dpo = DpoConfig.model_validate(common | {"pairs": str(pairs), "epochs": 10, "batch_size": 8})
    with closing(Stage(tmp_path / "dpo", [])) as stage:
        tune(dpo, stage)
    found = metrics(stage.run_dir)
    assert found[1]["train/margin"] == 0 and found[10]["train/margin"] > 0.1
    loaded = load_reward_model(stage.run_dir / "model", CPU)
    assert have_same_weights(loaded.reference, load_policy(tiny_model, CPU))
    assert not (stage.run_dir / "model/reference" / ADAPTER).exists()


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            SftConfig,
            {"adapter": LORA, "policy": {"name": "llama"}, "prompts": {"name": "sums"}},
            "adapter: the weights",
        ),
        (
            SftConfig,
            {"frozen_weights": "bfloat16", "policy": "x", "prompts": {"name": "sums"}},
            "frozen_weights: without an adapter",
        ),
        (DpoConfig, {"frozen_weights": "bfloat16", "policy": "x", "pairs": "y"}, "frozen_weights: without an adapter"),
        (
            DpoConfig,
            {"adapter": {"quantization": "nf4"}, "parallel": "fsdp2", "policy": "x", "pairs": "y"},
            "adapter.quantization: 4-bit weights cannot be sharded",
        ),
        (
            DpoConfig,
            {"adapter": LORA, "frozen_weights": "bfloat16", "parallel": "fsdp2", "policy": "x", "pairs": "y"},
            "frozen_weights: base and adapter",
        ),
        (DpoConfig, {"adapter": {"rank": 0}, "policy": "x", "pairs": "y"}, "greater than 0"),
    ],
)
def test_options_without_a_meaning_are_refused(kind, changes, message):
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(changes)
