"""A policy: a causal language model and its tokenizer, from safetensors and JSON: no pickle, no repository code."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.logging import disable_progress_bar

from lco.adapters import ADAPTER, add_adapter, plain_model, quantization, save_adapter, switched_off
from lco.config import StageConfig, TrainingStageConfig
from lco.distributed import held_like, rank, whole, whole_state
from lco.head import Head, head_of
from lco.memory import Memory
from lco.safety import check_is_safe
from lco.seeds import derived_seed

disable_progress_bar()  # a run's log is read as lines


@dataclass(slots=True)
class Policy:
    """A causal language model with its tokenizer, on one device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: torch.dtype = torch.float32
    """Type of the matrix products; weights that are trained are float32."""
    system_prompt: str = ""
    """What a chat template says before the user; empty for nothing."""
    has_adapter: bool = False
    is_adapter_off: bool = False
    """This is the policy that an adapter was put on, in the same memory."""
    is_checkpointed: bool = False
    """Blocks are computed again in the backward pass."""
    memory: Memory = field(default_factory=Memory)
    """How much of it is computed at once."""
    num_tokens: int = field(init=False)
    """Ids that the tokenizer can name: one more than the largest."""

    def __post_init__(self) -> None:
        self.num_tokens = 1 + max(self.tokenizer.get_vocab().values())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Entries that a distribution over the next token has: rows of the embedding that the tokenizer can name."""
        return min(self.num_tokens, int(self.model.config.vocab_size))

    @property
    def eos_id(self) -> int:
        """The end-of-sequence token."""
        return cast(int, self.tokenizer.eos_token_id)

    @property
    def max_positions(self) -> int:
        """Longest sequence the model accepts."""
        return cast(int, getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @property
    def is_quantized(self) -> bool:
        """Whether the weights under the adapter are held in 4 bits."""
        return getattr(self.model.config, "quantization_config", None) is not None

    @property
    def base(self) -> "Policy":
        """The policy without its adapter, in the same memory."""
        assert self.has_adapter
        return replace(self, is_adapter_off=True)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around every call of the model: the type of its products, its adapter, its checkpointed blocks."""
        with ExitStack() as stack:
            if self.is_adapter_off:
                assert not torch.is_grad_enabled(), "a policy with its adapter off is frozen"
                stack.enter_context(switched_off(self.model))
            if self.is_checkpointed and torch.is_grad_enabled():
                stack.enter_context(_recomputing(self.model))
            stack.enter_context(
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)
            )
            yield

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt: through the chat template where the tokenizer has one, else as it stands.

        Raises:
            ValueError: there is no token: nothing could follow it; or no template to say the system prompt in.
        """
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            if self.system_prompt:
                messages.insert(0, {"role": "system", "content": self.system_prompt})
            encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        elif self.system_prompt:
            raise ValueError("system_prompt: the tokenizer has no chat template to say it in")
        else:
            encoded = self.tokenizer.encode(text, add_special_tokens=False)
        if not encoded:
            raise ValueError(f"prompts: {text!r} has no tokens")
        return list(cast(list[int], encoded))

    def encode_completion(self, text: str) -> list[int]:
        """Token ids of a completion that ends by itself: its text and the end-of-sequence token."""
        return [*map(int, self.tokenizer.encode(text, add_special_tokens=False)), self.eos_id]

    def check_fits(self, prompt_ids: list[int], completion_ids: list[int], what: str) -> None:
        """A sequence must have a position for each of its tokens.

        Raises:
            ValueError: prompt and completion together are longer than the model's positions.
        """
        length = len(prompt_ids) + len(completion_ids)
        if length > self.max_positions:
            raise ValueError(f"{what}: {length} tokens exceed the model's {self.max_positions} positions")

    def decode(self, token_ids: list[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True))

    def pieces(self, token_ids: list[int]) -> list[str]:
        """Each token's part of `decode`'s text; special tokens have none."""
        pieces = [self.decode([token]) for token in token_ids]
        if "".join(pieces) == self.decode(token_ids):
            return pieces
        # A token may be a part of a character: it has none of the text, the token that completes the character has it.
        begun = [self.decode(token_ids[:count]).rstrip("\ufffd") for count in range(len(token_ids))]
        texts = [*begun, self.decode(token_ids)]
        return [text[len(before) :] for before, text in pairwise(texts)]

    def token_logits(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Float32 logits of the next token at the masked positions, `[N, V]`, for right-padded sequences.

        The head is applied from the first masked column on, so that prompts cost no logits.
        """
        first = int(mask_BT.any(0).nonzero()[0, 0])
        columns_T = torch.arange(first, mask_BT.shape[1], device=mask_BT.device)
        with self.computing():
            output = self.model(
                input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False, logits_to_keep=columns_T
            )
        logits_BTV = cast(Tensor, output.logits)[..., : self.vocab_size]
        return logits_BTV[mask_BT[:, first:]].float()

    def hidden_states(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """The last hidden states at the masked positions, `[N, H]`: what `head` makes logits of."""
        with self.computing():
            output = self.model.base_model(input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False)
        states_NH: Tensor = output.last_hidden_state[mask_BT]
        return states_NH

    def head(self) -> Head:
        """What makes logits of hidden states. Raises ValueError where that is no linear layer."""
        return head_of(self.model, self.vocab_size, self.precision)

    def check_head(self) -> None:
        """Head and hidden states must give the model's own logits.

        Raises:
            ValueError: they do not: the architecture does something else between the two.
        """
        ids_BT = torch.arange(min(8, self.vocab_size), device=self.device)[None]
        masks = torch.ones_like(ids_BT), torch.ones_like(ids_BT, dtype=torch.bool)
        with torch.no_grad():
            found_NV = self.head().logits(self.hidden_states(ids_BT, *masks))
            expected_NV = self.token_logits(ids_BT, *masks)
        if not torch.allclose(found_NV, expected_NV, rtol=1e-2, atol=1e-2):
            raise ValueError("loss_chunk_tokens: the architecture has more than a linear layer after its states")

    def save(self, directory: Path) -> None:
        """Writes safetensors weights, configuration and tokenizer, readable by `load_policy` and by transformers.

        An adapter is merged, and also written by itself into `adapter/`; one that is off is left out.
        """
        weights = whole_state(self.model)
        if rank() > 0:
            return
        directory.mkdir(parents=True, exist_ok=True)
        if self.has_adapter:
            plain_model(self.model, weights, is_merged=not self.is_adapter_off).save_pretrained(directory)
            if not self.is_adapter_off:
                save_adapter(self.model, weights, directory / ADAPTER)
        else:
            self.model.save_pretrained(directory, state_dict=weights, safe_serialization=True)
        self.tokenizer.save_pretrained(directory)


def device_of(config: StageConfig) -> torch.device:
    """The device a stage runs on.

    Raises:
        ValueError: `cuda` is asked for and none is seen.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: no GPU is visible to this process")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def _recomputing(model: nn.Module) -> Iterator[None]:
    """Blocks note their inputs alone, and compute again in the backward pass.

    transformers does so in training mode alone. The blocks themselves are told that they are in it, not what is inside
    them, so that a model's dropout stays off.
    """
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        for block in blocks:
            block.training = False


def load_trained(directory: Path, config: TrainingStageConfig) -> Policy:
    """The policy that a stage trains: as `load_policy`, with the adapter and the checkpointing that are asked for.

    Raises:
        ValueError: as `load_policy`; or the model cannot have the adapter, or cannot recompute its blocks.
    """
    products = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    weights = _frozen_type(config) if config.adapter else torch.float32
    return trained(load_policy(directory, config, weights, quantization(config.adapter, products)), config)


def trained(policy: Policy, config: TrainingStageConfig) -> Policy:
    """A plain policy made ready for training, see `load_trained`."""
    if config.adapter:
        add_adapter(policy.model, config.adapter, derived_seed(config.seed, "adapter"))
        policy.has_adapter = True
    if config.gradient_checkpointing:
        if not policy.model.supports_gradient_checkpointing:
            raise ValueError("gradient_checkpointing: the model's architecture has no blocks to recompute")
        older = policy.model.gradient_checkpointing_enable  # the name in earlier transformers 5
        getattr(policy.model, "activation_checkpointing_enable", older)({"use_reentrant": False})
        policy.is_checkpointed = True
    if config.loss_chunk_tokens:
        policy.check_head()
    return policy


def load_frozen(directory: Path, config: StageConfig) -> Policy:
    """A policy that is never trained, in the type that the stage holds such weights in. Raises as `load_policy`."""
    policy = load_policy(directory, config, _frozen_type(config))
    policy.model.requires_grad_(False)
    return policy


def _frozen_type(config: StageConfig) -> torch.dtype:
    is_half = isinstance(config, TrainingStageConfig) and config.frozen_weights == "bfloat16"
    return torch.bfloat16 if is_half else torch.float32


def load_policy(
    directory: Path, config: StageConfig, weights: torch.dtype = torch.float32, quantized: Any = None
) -> Policy:
    """The policy in a directory of safetensors and JSON, in evaluation mode (no dropout), on the stage's device.

    Args:
        weights: type that they are held in.
        quantized: transformers' quantization configuration; None for none.

    Raises:
        ValueError: the directory is missing, holds code, a pickle or another unsafe file, or names code to run; or its
            tokenizer has no end or names tokens without an embedding.
    """
    check_is_safe(directory)
    model_config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        config=model_config,
        dtype=weights,
        quantization_config=quantized,
        device_map=None if quantized is None else {"": device_of(config)},
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ValueError(f"{directory}: the tokenizer has no end-of-sequence token")
    policy = ready_policy(model, tokenizer, config)
    num_rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    if policy.num_tokens > num_rows:
        raise ValueError(f"{directory}: its tokenizer names {policy.num_tokens} tokens, its embedding {num_rows} rows")
    return policy


def ready_policy(model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: StageConfig) -> Policy:
    """A model in evaluation mode on the stage's device, with its tokenizer."""
    model.to(device_of(config))
    model = cast(PreTrainedModel, model)
    model.eval()  # no dropout anywhere: the behaviour policy and the trained one must be the same function
    precision = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    return Policy(model, tokenizer, precision, config.system_prompt)


def check_same_tokenizer(policy: Policy, other: Policy, what: str) -> None:
    """Dense advantages are over token ids: both tokenizers must give every id the same string.

    Raises:
        ValueError: they differ, or one model has no logits for some of the tokens.
    """
    if policy.tokenizer.get_vocab() != other.tokenizer.get_vocab() or policy.eos_id != other.eos_id:
        raise ValueError(f"{what}: its tokenizer is not the policy's; a dense advantage needs one vocabulary")
    if policy.vocab_size != other.vocab_size:
        raise ValueError(f"{what}: it has {other.vocab_size} tokens with logits, the policy {policy.vocab_size}")


def have_same_weights(first: Policy, second: Policy) -> bool:
    """Whether two policies are the same function, parameter by parameter."""
    first_config, second_config = (
        {key: value for key, value in policy.model.config.to_dict().items() if key != "_name_or_path"}
        for policy in (first, second)
    )
    if first_config != second_config:
        return False
    pairs = zip(_compared(first), _compared(second), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def _compared(policy: Policy) -> list[Tensor]:
    """The parameters that make the function, in order: without an adapter that is off."""
    return [p for name, p in policy.model.named_parameters() if not (policy.is_adapter_off and "lora_" in name)]


def copy_weights(path: Path, model: nn.Module) -> None:
    """Loads the trained parameters of a safetensors file that `named_weights` made, in place."""
    stored = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(held_like(stored[name], parameter))


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every trained parameter once, tied ones under their first name: of a model with an adapter, the adapter."""
    return {
        name: whole(parameter.detach()).contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
