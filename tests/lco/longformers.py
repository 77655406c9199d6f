"""Tiny Longformers with random weights in the form of QA-Feedback's reward models: built, never downloaded."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LongformerConfig,
    LongformerForSequenceClassification,
    LongformerForTokenClassification,
    PreTrainedTokenizerFast,
)

from lco.config import QaFeedback
from lco.oracles.qa_feedback import FACTUALITY_LABELS, RELEVANCE_LABELS

MAX_TOKENS = 256
_TEXT = "question: who wrote this answer: The book was written in 1999, and it is long; context: wikipage: text: "


def save_classifier(directory: Path, labels: tuple[str, ...], seed: int) -> Path:
    """A token classifier with these labels, or with a single one a sequence classifier."""
    config = LongformerConfig(
        vocab_size=400,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        attention_window=[16, 16],
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        sep_token_id=2,
        initializer_range=0.35,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = LongformerForSequenceClassification if len(labels) == 1 else LongformerForTokenClassification
        kind(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


def save_qa_feedback(directory: Path) -> QaFeedback:
    """The three reward models and the configuration that names them."""
    return QaFeedback(
        relevance=str(save_classifier(directory / "relevance", RELEVANCE_LABELS, 1)),
        factuality=str(save_classifier(directory / "factuality", FACTUALITY_LABELS, 2)),
        completeness=str(save_classifier(directory / "completeness", ("LABEL_0",), 3)),
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens and the prefix space of RoBERTa's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([_TEXT] * 4, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=MAX_TOKENS,
        add_prefix_space=True,
    )
