"""The three rewards of Fine-Grained RLHF on QA-Feedback (arXiv 2306.01693): relevance, factuality, completeness.

Scored as the authors' `tasks/qa_feedback/training/reward.py` scores them: a token classifier says at the separator
before each sub-sentence whether it is relevant, another at each sentence whether it agrees with the passages, and a
sequence classifier rates the whole response. https://github.com/allenai/FineGrainedRLHF

Departures, all recorded in `Score.notes`, where the original fails or compares the wrong tokens:

- An input over the models' length loses passages from their end, then the response its end; a unit that no model saw
  counts as an error.
- A `</s>` that a text spells is blanked out: only the separators that stand before a unit count.
- A blank response has no unit and the reward 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lco.config import QaFeedback, StageConfig
from lco.oracles.longformer import SEPARATOR, Classifier, load_sequence_classifier, load_token_classifier
from lco.oracles.sentences import MAX_PARSED_CHARACTERS, SentenceSplitter, Units, without_surrogates

RELEVANCE_LABELS = ("Ignore", "NF-ERR", "O")
FACTUALITY_LABELS = ("F-ERR", "Ignore", "O")

# The authors' fine_grained_config.yml.
RELEVANCE_REWARD = 0.3
FACTUALITY_REWARD = 0.5
COMPLETENESS_MEAN = -0.44677690555995353
COMPLETENESS_STD = 8.301160619054132
COMPLETENESS_SCALE = 0.3

Note = Literal["blank", "passages-cut", "response-cut", "separator-in-text"]


@dataclass(frozen=True, slots=True)
class Response:
    """What is scored: a response to a question with its passages."""

    question: str
    prompt: str
    """Question and passages: the `text` of QA-Feedback's dev and test files."""
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The three rewards of one response, with what they were made of."""

    subsentence_starts: list[int]
    """Start of each sub-sentence in the response, then its length."""
    sentence_ends: list[int]
    """0, then the end of each sentence."""
    n_sub_sentences: int
    n_sentences: int
    n_relevant: int
    """Sub-sentences without an error of relevance, repetition or coherence."""
    n_factual: int
    """Sentences without an error of fact."""
    relevance_ratio: float
    """Relevant share of the sub-sentences; 0 for a blank response."""
    factuality_ratio: float
    """Factual share of the sentences; 0 for a blank response."""
    completeness_normalised: float
    """The completeness model's logit, less its mean, over its standard deviation; 0 for a blank response."""
    reward_sum: float
    """What training maximises: the sum of the three below. Longer responses can collect more."""
    relevance_sum: float
    """0.3 for each relevant sub-sentence, -0.3 for each other."""
    factuality_sum: float
    """0.5 for each factual sentence, -0.5 for each other."""
    completeness_scaled: float
    """0.3 times the normalised completeness."""
    n_tokens: int
    """Tokens of the response by the relevance model's tokenizer."""
    notes: tuple[Note, ...] = ()
    """Where this score departs from the original code, which gives none."""

    def row(self) -> dict[str, Any]:
        """The score as JSON, without its notes."""
        document = asdict(self)
        del document["notes"]
        return document


@dataclass(slots=True)
class _Input:
    """Token ids of one classifier's input and where its separators stand, but for those that were cut off."""

    tokens: list[int]
    positions: list[int]


class QaFeedbackScorer:
    """Scores responses with three loaded reward models."""

    def __init__(self, config: QaFeedback, stage: StageConfig) -> None:
        self._relevance = load_token_classifier(Path(config.relevance), RELEVANCE_LABELS, stage)
        self._factuality = load_token_classifier(Path(config.factuality), FACTUALITY_LABELS, stage)
        self._completeness = load_sequence_classifier(Path(config.completeness), stage)
        self._splitter = SentenceSplitter()
        self._batch_size = config.batch_size

    def scores(self, responses: Sequence[Response]) -> list[Score]:
        """The score of each response; neither order nor company changes one. No text raises."""
        notes: list[set[Note]] = [set() for _ in responses]
        clean = [_clean(one, found) for one, found in zip(responses, notes, strict=True)]
        units = list(self._splitter.split([one.response for one in clean]))
        relevance, factuality, completeness = [], [], []
        for one, found_units, found in zip(clean, units, notes, strict=True):
            relevance.append(_relevance_input(self._relevance, one, found_units, found))
            factuality.append(_factuality_input(self._factuality, one, found_units, found))
            completeness.append(_completeness_tokens(self._completeness, one, found))
        relevant = self._good_units(self._relevance, relevance, error=1)
        factual = self._good_units(self._factuality, factuality, error=0)
        rated = self._completeness.logits(completeness, self._batch_size)
        return [
            self._score(one, *parts) for one, *parts in zip(clean, units, relevant, factual, rated, notes, strict=True)
        ]

    def _good_units(self, classifier: Classifier, inputs: list[_Input], error: int) -> list[int]:
        """How many units of each input are no error: `O` above the error label; equal logits are an error."""
        logits = classifier.logits([one.tokens for one in inputs], self._batch_size)
        good = 2
        return [
            sum(bool(rows_TC[at, good] > rows_TC[at, error]) for at in one.positions)
            for one, rows_TC in zip(inputs, logits, strict=True)
        ]

    def _score(
        self, one: Response, units: Units, n_relevant: int, n_factual: int, rated: Tensor, notes: set[Note]
    ) -> Score:
        num_sub_sentences, num_sentences = units.num_sub_sentences, units.num_sentences
        completeness = (rated.item() - COMPLETENESS_MEAN) / COMPLETENESS_STD if num_sentences else 0.0
        relevance_sum = RELEVANCE_REWARD * (2 * n_relevant - num_sub_sentences)
        factuality_sum = FACTUALITY_REWARD * (2 * n_factual - num_sentences)
        completeness_scaled = COMPLETENESS_SCALE * completeness
        return Score(
            subsentence_starts=units.sub_sentence_starts,
            sentence_ends=units.sentence_ends,
            n_sub_sentences=num_sub_sentences,
            n_sentences=num_sentences,
            n_relevant=n_relevant,
            n_factual=n_factual,
            relevance_ratio=n_relevant / num_sub_sentences if num_sub_sentences else 0.0,
            factuality_ratio=n_factual / num_sentences if num_sentences else 0.0,
            completeness_normalised=completeness,
            reward_sum=relevance_sum + factuality_sum + completeness_scaled,
            relevance_sum=relevance_sum,
            factuality_sum=factuality_sum,
            completeness_scaled=completeness_scaled,
            n_tokens=len(self._relevance.text_tokens(one.response)),
            notes=tuple(sorted(notes)),
        )


def _clean(one: Response, notes: set[Note]) -> Response:
    """The response with its separators blanked and lone surrogates replaced, at the same offsets."""
    texts = [without_surrogates(text) for text in (one.question, one.prompt, one.response)]
    if any(SEPARATOR in text for text in texts):
        notes.add("separator-in-text")
        texts = [text.replace(SEPARATOR, " " * len(SEPARATOR)) for text in texts]
    if texts[-1][MAX_PARSED_CHARACTERS:].strip():
        notes.add("response-cut")
    if not texts[-1].strip():
        notes.add("blank")
    return Response(*texts)


def _relevance_input(classifier: Classifier, one: Response, units: Units, notes: set[Note]) -> _Input:
    """`question: Q answer: </s> u1 </s> u2 ...`, without passages."""
    head = classifier.word_tokens(f"question: {one.question} answer:".split())
    starts = units.sub_sentence_starts
    return _input(classifier, head, len(head), _pieces(one.response, starts), notes)


def _factuality_input(classifier: Classifier, one: Response, units: Units, notes: set[Note]) -> _Input:
    """`PROMPT answer: </s> s1 </s> s2 ...`."""
    head = classifier.word_tokens(f"{one.prompt} answer:".split())
    return _input(classifier, head, _num_question_words(one), _pieces(one.response, units.sentence_ends), notes)


def _pieces(text: str, bounds: list[int]) -> list[list[str]]:
    """The words of each unit that ends within what is parsed."""
    units = [text[start:end].rstrip() for start, end in pairwise(bounds)]
    return [
        unit.split() for start, unit in zip(bounds, units, strict=False) if start + len(unit) <= MAX_PARSED_CHARACTERS
    ]


def _input(
    classifier: Classifier, head: list[list[int]], num_kept: int, units: list[list[str]], notes: set[Note]
) -> _Input:
    """Head and units with a separator before each, cut to the model's length.

    Args:
        head: tokens of each word before the units, the last one `answer:`.
        num_kept: leading words that are no passage.
    """
    room = classifier.max_tokens - 2
    separator = classifier.with_ends([])[-1]
    tail: list[int] = []
    offsets = []
    for words in units:
        offsets.append(len(tail))
        tail += [separator, *(token for word in classifier.word_tokens(words) for token in word)]
    kept = _shortened(head, num_kept, room - len(tail), notes)
    tokens = [token for word in kept for token in word]
    start = len(tokens)
    tokens += tail
    if len(tokens) > room:
        notes.add("response-cut")
        del tokens[room:]
    return _Input(classifier.with_ends(tokens), [start + offset + 1 for offset in offsets if start + offset < room])


def _shortened(head: list[list[int]], num_kept: int, room: int, notes: set[Note]) -> list[list[int]]:
    """The words of a head with as few of its last ones before `answer:` left out as fit into so many tokens."""
    length = sum(map(len, head))
    *words, answer = head
    while length > room and len(words) > num_kept:
        length -= len(words.pop())
        notes.add("passages-cut")
    return [*words, answer]


def _num_question_words(one: Response) -> int:
    """Words of a prompt before its passages: those of the question that it begins with."""
    words = f"question: {one.question}".split()
    return len(words) if one.prompt.split()[: len(words)] == words else 0


def _completeness_tokens(classifier: Classifier, one: Response, notes: set[Note]) -> list[int]:
    """`PROMPT answer: RESPONSE`, white space collapsed in the prompt alone."""
    room = classifier.max_tokens - 2
    words = one.prompt.split()
    ending = f" answer: {one.response[:MAX_PARSED_CHARACTERS]}"
    tokens = classifier.text_tokens(" ".join(words) + ending)
    if len(tokens) > room:
        head = [*classifier.word_tokens(words), []]
        kept = _shortened(head, _num_question_words(one), room - len(classifier.text_tokens(ending)), notes)
        tokens = classifier.text_tokens(" ".join(words[: len(kept) - 1]) + ending)
    if len(tokens) > room:
        notes.add("response-cut")
    return classifier.with_ends(tokens[:room])
