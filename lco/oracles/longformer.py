"""Classifiers over long texts, loaded from directories of safetensors and JSON: the reward models of QA-Feedback.

The authors' own Longformer class differs from the library's in a bfloat16 detail alone, so the plain classes serve.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lco.config import StageConfig
from lco.policy import device_of
from lco.safety import check_is_safe

SEPARATOR = "</s>"


@dataclass(slots=True)
class Classifier:
    """A token or sequence classifier with its tokenizer, in float32 and without dropout."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    directory: Path

    @property
    def max_tokens(self) -> int:
        """Longest input, special tokens included. Two positions are left out: Longformer counts them from `pad + 1`."""
        positions = int(self.model.config.max_position_embeddings) - 2
        return min(positions, int(self.tokenizer.model_max_length))

    def word_tokens(self, words: list[str]) -> list[list[int]]:
        """Token ids of each word of a text that was split at white space, without special tokens around them."""
        encoded = self.tokenizer(words, is_split_into_words=True, add_special_tokens=False, verbose=False)
        tokens: list[list[int]] = [[] for _ in words]
        for token, word in zip(cast(list[int], encoded["input_ids"]), encoded.word_ids(), strict=True):
            if word is not None:
                tokens[word].append(token)
        return tokens

    def text_tokens(self, text: str) -> list[int]:
        """Token ids of a plain text, without special tokens around it."""
        return list(cast(list[int], self.tokenizer.encode(text, add_special_tokens=False, verbose=False)))

    def with_ends(self, tokens: list[int]) -> list[int]:
        """The tokens between the tokenizer's own first and last special token."""
        return [cast(int, self.tokenizer.cls_token_id), *tokens, cast(int, self.tokenizer.sep_token_id)]

    @torch.inference_mode()
    def logits(self, inputs: list[list[int]], batch_size: int) -> list[Tensor]:
        """Logits of each input: `[T, labels]` of a token classifier, `[labels]` of a sequence classifier.

        Inputs of like length share a batch; padding stands on the right and reaches no number.
        """
        results: list[Tensor] = [torch.empty(0)] * len(inputs)
        order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]), reverse=True)
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            for index, row in zip(indices, self._batch_logits([inputs[i] for i in indices]), strict=True):
                results[index] = row[: len(inputs[index])] if row.ndim == 2 else row
        return results

    def _batch_logits(self, inputs: list[list[int]]) -> Tensor:
        window = max(self.model.config.attention_window)  # what the library pads to by itself, with a warning
        width = -(-max(map(len, inputs)) // window) * window
        ids_BT = torch.full((len(inputs), width), cast(int, self.tokenizer.pad_token_id))
        mask_BT = torch.zeros_like(ids_BT)
        for row, tokens in enumerate(inputs):
            ids_BT[row, : len(tokens)] = torch.tensor(tokens)
            mask_BT[row, : len(tokens)] = 1
        arguments = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if self.model.config.num_labels == 1:  # so too
            arguments["global_attention_mask"] = torch.zeros_like(ids_BT)
            arguments["global_attention_mask"][:, 0] = 1
        output = self.model(**{name: tensor.to(self.model.device) for name, tensor in arguments.items()})
        return cast(Tensor, output.logits).float().cpu()


def load_token_classifier(directory: Path, labels: tuple[str, ...], config: StageConfig) -> Classifier:
    """A token classifier whose labels are these, in this order.

    Raises:
        ValueError: the directory holds no such model, or something that could run code.
    """
    found = _checked_config(directory)
    names = tuple(found.id2label.get(index) for index in range(len(found.id2label)))
    if names != labels:
        wanted, shown = (", ".join(f"{index} {name}" for index, name in enumerate(each)) for each in (labels, names))
        raise ValueError(f"{directory}: its labels are {shown}; this reward needs {wanted}")
    return _load(AutoModelForTokenClassification, directory, found, config)


def load_sequence_classifier(directory: Path, config: StageConfig) -> Classifier:
    """A sequence classifier with one logit.

    Raises:
        ValueError: the directory holds no such model, or something that could run code.
    """
    found = _checked_config(directory)
    if found.num_labels != 1 or any("ForSequence" not in name for name in found.architectures or []):
        shown = ", ".join(map(str, found.id2label.values()))
        raise ValueError(f"{directory}: this reward needs a sequence classifier with one logit; its labels are {shown}")
    return _load(AutoModelForSequenceClassification, directory, found, config)


def _checked_config(directory: Path) -> Any:
    check_is_safe(directory)
    found = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if found.model_type != "longformer":
        raise ValueError(f"{directory}: the model is a {found.model_type}; QA-Feedback's reward models are Longformers")
    return found


def _load(auto_class: Any, directory: Path, model_config: Any, config: StageConfig) -> Classifier:
    with warnings.catch_warnings():
        # The library assigns to its own deprecated fields while it builds the model.
        warnings.simplefilter("ignore", DeprecationWarning)
        model, loading = auto_class.from_pretrained(
            directory,
            config=model_config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, add_prefix_space=True
        )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{directory}: the weights lack {', '.join(missing[:3])}; they would be drawn at random")
    if not tokenizer.is_fast or tokenizer.convert_tokens_to_ids(SEPARATOR) != tokenizer.sep_token_id:
        raise ValueError(f"{directory}: the tokenizer needs a tokenizer.json whose separator is {SEPARATOR}")
    model.requires_grad_(False)
    model.to(device_of(config))
    return Classifier(model.eval(), tokenizer, directory)
