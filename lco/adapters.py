"""Low-rank adapters on frozen weights (LoRA, arXiv 2106.09685; QLoRA, arXiv 2305.14314), through peft.

The adapter stands inside the model's own linear layers: W x + (alpha / rank) B A x. Switched off, the same memory is
the policy that training started from. peft is imported by the runs that use it, since it takes seconds.
"""

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lco.config import Lora

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

ADAPTER = "adapter"
"""Directory beside a merged model's weights that holds its adapter alone, as peft writes it."""
_NAME = "default"
_IN_PEFT = "base_model.model."


def quantization(adapter: Lora | None, products: torch.dtype) -> Any:
    """What transformers is told so that the base's linear layers are loaded as 4-bit NormalFloat; None for no QLoRA.

    Args:
        products: type of the matrix products, to which weights are expanded on the fly.

    Raises:
        ValueError: bitsandbytes is missing.
    """
    if adapter is None or adapter.quantization == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("adapter.quantization: nf4 needs bitsandbytes: pip install 'lco-platform[qlora]'")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=products
    )


def add_adapter(model: PreTrainedModel, adapter: Lora, seed: int) -> None:
    """Freezes the model and puts an adapter into it: A drawn from the seed, B zero, so that nothing changes yet.

    The adapter's weights are float32, whatever the base's are.

    Raises:
        ValueError: the model has none of the target modules, or one of them is no linear layer below the head.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = adapter.target_modules
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=cast(int, adapter.alpha),
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )
    model.requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would compute in bfloat16 where there is no gradient: another function than the trained one.
            cast(Any, module).support_avx512bf16_for_cpu = False
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model, adapter_name=_NAME)
        except ValueError as error:  # peft's own words go on for a screen
            raise ValueError(f"adapter.target_modules: no linear layer of the model is called {targets}") from error
    for name, layer in adapted_layers(model):
        if _NAME not in layer.lora_A or model.get_submodule(name) is model.get_output_embeddings():
            raise ValueError(f"adapter.target_modules: {name} is the head, or no linear layer")
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        assert parameter.requires_grad == ("lora_" in name), name
    model.eval()  # injected layers are born in training mode


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, "LoraLayer"]]:
    """Every layer with an adapter, by its name in the model."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapter, for forward passes without a gradient."""
    layers = [layer for _, layer in adapted_layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def plain_weights(model: PreTrainedModel, state: dict[str, Tensor], *, is_merged: bool) -> dict[str, Tensor]:
    """Float32 weights under the names of the plain architecture: adapters added to what they adapt, or left out.

    4-bit weights are expanded, so that a merged model is the very function that was trained. Weights that nothing
    changes are not copied where they are float32 already.

    Args:
        state: the model's, every tensor in one piece.
    """
    layers = dict(adapted_layers(model))
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        if "lora_" in name or leaf not in ("weight", "bias"):
            continue  # an adapter's own weights, and the scales of 4-bit ones
        plain_name = owner.removesuffix(".base_layer")
        weight = _expanded(model.get_submodule(owner), tensor) if leaf == "weight" else tensor.float()
        if is_merged and leaf == "weight" and plain_name in layers:
            weight = weight + _difference(layers[plain_name], plain_name, state).to(weight)
        weights[f"{plain_name}.{leaf}"] = weight
    return weights


def _difference(layer: "LoraLayer", name: str, state: dict[str, Tensor]) -> Tensor:
    """(alpha / rank) B A of a layer, in the orientation of its weight."""
    product: Tensor = (
        state[f"{name}.lora_B.{_NAME}.weight"] @ state[f"{name}.lora_A.{_NAME}.weight"] * layer.scaling[_NAME]
    )
    return product.T if getattr(layer, "fan_in_fan_out", False) else product


def _expanded(module: nn.Module, weight: Tensor) -> Tensor:
    """A layer's weight as float32, whatever it is stored as."""
    held: Any = module.weight
    if not hasattr(held, "quant_state"):
        return weight.float()
    import bitsandbytes.functional

    return bitsandbytes.functional.dequantize_4bit(held.data, held.quant_state).float()


def plain_model(model: PreTrainedModel, state: dict[str, Tensor], *, is_merged: bool) -> PreTrainedModel:
    """The model as one of its plain architecture, with its adapter merged or left out; see `plain_weights`."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    with torch.device("meta"):
        plain = cast(PreTrainedModel, AutoModelForCausalLM.from_config(config))
    weights = plain_weights(model, state, is_merged=is_merged)
    missing, unexpected = plain.load_state_dict(weights, strict=False, assign=True)
    assert not missing and not unexpected, (missing, unexpected)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def save_adapter(model: PreTrainedModel, state: dict[str, Tensor], directory: Path) -> None:
    """Writes the adapter alone, as `peft.PeftModel.from_pretrained` reads it onto the base model."""
    directory.mkdir(parents=True, exist_ok=True)
    cast(Any, model).peft_config[_NAME].save_pretrained(directory)
    weights = {
        _IN_PEFT + name.replace(f".{_NAME}.", "."): tensor.detach().contiguous().cpu()
        for name, tensor in state.items()
        if "lora_" in name
    }
    save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
