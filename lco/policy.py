"""A policy: a causal language model and its tokenizer, from safetensors and JSON: no pickle, no repository code."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from lco.config import LlamaInit, StageConfig
from lco.distributed import held_like, rank, whole, whole_state
from lco.seeds import derived_seed

disable_progress_bar()  # a run's log is read as lines

REWARD_MODEL = "reward_model.json"
REFERENCE = "reference"

_UNSAFE_SUFFIXES = frozenset(
    (
        ".bin",
        ".pt",
        ".pth",
        ".pkl",
        ".pickle",
        ".ckpt",
        ".h5",
        ".keras",
        ".joblib",
        ".npy",
        ".npz",
        ".msgpack",
        ".py",
        ".gguf",
    )
)
_UNSAFE_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipeline"})


@dataclass(slots=True)
class Policy:
    """A causal language model with its tokenizer, on one device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: torch.dtype = torch.float32
    """Type of the matrix products; the weights are float32."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def vocab_size(self) -> int:
        """Entries that a distribution over the next token has: rows of the embedding that the tokenizer can name."""
        return min(len(self.tokenizer), int(self.model.config.vocab_size))

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
            ValueError: there is no token: nothing could follow it.
        """
        if self.tokenizer.chat_template:
            messages = [{"role": "user", "content": text}]
            encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
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
        ValueError: the directory is missing, holds code, a pickle or another unsafe file, or names code to run.
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
    return _ready(model, tokenizer, config)


def initial_policy(init: LlamaInit, config: StageConfig) -> Policy:
    """A Llama policy with random weights drawn from the stage's seed, and a character tokenizer.

    Raises:
        ValueError: `num_heads` does not divide `hidden_size`, or a character stands twice.
    """
    if init.hidden_size % init.num_heads:
        raise ValueError(f"num_heads: {init.num_heads} does not divide hidden_size {init.hidden_size}")
    tokenizer = character_tokenizer(init.characters, init.max_positions)
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=init.hidden_size,
        intermediate_size=init.intermediate_size,
        num_hidden_layers=init.num_layers,
        num_attention_heads=init.num_heads,
        num_key_value_heads=init.num_heads,
        max_position_embeddings=init.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": init.rope_theta},
        initializer_range=init.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(config.seed, "initial-weights"))
        model = LlamaForCausalLM(llama)
    return _ready(model, tokenizer, config)


def character_tokenizer(characters: str, max_positions: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character after `<pad>` and `<eos>`, in the standard `tokenizers` format."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    if len(set(characters)) != len(characters):
        raise ValueError("characters: one stands twice")
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )


def _ready(model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: StageConfig) -> Policy:
    model.to(device_of(config))
    model = cast(PreTrainedModel, model)
    model.eval()  # no dropout anywhere: the behaviour policy and the trained one must be the same function
    precision = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    return Policy(model, tokenizer, precision)


def check_is_safe(directory: Path) -> None:
    """Looks at a model directory before anything of it is loaded.

    Raises:
        ValueError: it is missing, a file could run code when loaded, or a JSON file names code to run.
    """
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory}: no model here (config.json is missing)")
    for path in directory.rglob("*"):
        if path.suffix.lower() in _UNSAFE_SUFFIXES:
            raise ValueError(f"{directory}: {path.name} is refused, a model is safetensors and JSON only")
        if path.suffix == ".json" and path.is_file():
            try:
                document = json.loads(path.read_bytes())
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{directory}: {path.name} is no JSON ({error})") from error
            if found := _keys(document) & _UNSAFE_KEYS:
                raise ValueError(f"{directory}: {path.name} names code to run ({', '.join(sorted(found))})")


def _keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document).union(*map(_keys, document.values()))
    if isinstance(document, list):
        return set().union(*map(_keys, document))
    return set()


@dataclass(slots=True)
class RewardModel:
    """A DPO reward model: the tuned policy, its reference, and the beta it was tuned with."""

    policy: Policy
    reference: Policy
    beta_dpo: float


def save_reward_model(policy: Policy, reference_directory: Path, beta_dpo: float, directory: Path) -> None:
    """Writes pi_dpo with its reference in `reference/` and its beta in `reward_model.json`."""
    policy.save(directory)
    if rank() > 0:
        return
    shutil.copytree(
        reference_directory,
        directory / REFERENCE,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns(REFERENCE, REWARD_MODEL, "manifest.json"),
    )
    (directory / REWARD_MODEL).write_text(json.dumps({"beta_dpo": beta_dpo, "reference": REFERENCE}))


def load_reward_model(directory: Path, config: StageConfig) -> RewardModel:
    """The reward model in a directory that `lco.dpo` wrote.

    Raises:
        ValueError: its manifest or reference is missing.
    """
    try:
        manifest = json.loads((directory / REWARD_MODEL).read_bytes())
        beta_dpo = float(manifest["beta_dpo"])
        if not 0 < beta_dpo < math.inf:
            raise ValueError(f"beta_dpo is {beta_dpo}")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{directory}: no DPO reward model here ({REWARD_MODEL}: {error})") from error
    return RewardModel(load_policy(directory, config), load_policy(directory / REFERENCE, config), beta_dpo)


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
