"""A policy: a causal language model and its tokenizer, from safetensors and JSON: no pickle, no repository code."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from lco.config import StageConfig
from lco.distributed import held_like, rank, whole, whole_state
from lco.safety import check_is_safe

disable_progress_bar()  # a run's log is read as lines


@dataclass(slots=True)
class Policy:
    """A causal language model with its tokenizer, on one device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: torch.dtype = torch.float32
    """Type of the matrix products; the weights are float32."""
    system_prompt: str = ""
    """What a chat template says before the user; empty for nothing."""
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

    def token_logits(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Float32 logits of the next token at the masked positions, `[N, V]`, for right-padded sequences.

        The head is applied from the first masked column on, so that prompts cost no logits.
        """
        first = int(mask_BT.any(0).nonzero()[0, 0])
        columns_T = torch.arange(first, mask_BT.shape[1], device=mask_BT.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
            output = self.model(
                input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False, logits_to_keep=columns_T
            )
        logits_BTV = cast(Tensor, output.logits)[..., : self.vocab_size]
        return logits_BTV[mask_BT[:, first:]].float()

    def save(self, directory: Path) -> None:
        """Writes safetensors weights, configuration and tokenizer, readable by `load_policy` and by transformers."""
        weights = whole_state(self.model)
        if rank() == 0:
            directory.mkdir(parents=True, exist_ok=True)
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


def load_policy(directory: Path, config: StageConfig) -> Policy:
    """The policy in a directory of safetensors and JSON, in evaluation mode (no dropout), on the stage's device.

    Raises:
        ValueError: the directory is missing, holds code, a pickle or another unsafe file, or names code to run; or its
            tokenizer has no end or names tokens without an embedding.
    """
    check_is_safe(directory)
    model_config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        config=model_config,
        dtype=torch.float32,
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
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def copy_weights(path: Path, model: nn.Module) -> None:
    """Loads the parameters of a safetensors file that `named_weights` made, in place."""
    stored = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(held_like(stored[name], parameter))


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter once, tied ones under their first name."""
    return {name: whole(parameter.detach()).contiguous() for name, parameter in model.named_parameters()}
