"""QA-Feedback's oracle: the three reward models and ROUGE-Lsum, for a benchmark that sees text alone."""

from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise

from evaluation.rouge import rouge_lsum
from lco.config import QaFeedback, StageConfig
from lco.oracles.qa_feedback import QaFeedbackScorer, Response, Score
from lco.oracles.sentences import SentenceSplitter

ROUGE_VERSION = "1"


class QaOracle:
    """Scores responses against passages and references."""

    def __init__(self, config: QaFeedback, stage: StageConfig | None = None) -> None:
        """Loads the three models.

        Raises:
            ValueError: a directory holds no such model, or its labels are others.
        """
        self._scorer = QaFeedbackScorer(config, stage or StageConfig())
        self._splitter = SentenceSplitter()
        self._sentences: dict[str, list[str]] = {}

    def scores(self, responses: Sequence[tuple[str, str, str]]) -> list[Score]:
        """The three rewards of each question, prompt (the question with its passages) and response."""
        return self._scorer.scores([Response(*one) for one in responses])

    def rouge_lsum(self, responses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """ROUGE-Lsum of each response against the reference it is nearest to, in [0, 1]."""
        unknown = {text for some in references for text in some} - self._sentences.keys()
        for text, sentences in zip(unknown, self._split(list(unknown)), strict=True):
            self._sentences[text] = sentences
        return [
            rouge_lsum(sentences, [self._sentences[text] for text in some])
            for sentences, some in zip(self._split(responses), references, strict=True)
        ]

    def close(self) -> None:
        """Nothing is left open: memory goes with the object."""

    def _split(self, texts: Sequence[str]) -> list[list[str]]:
        cut = []
        for text, units in zip(texts, self._splitter.split(texts), strict=True):
            ends = units.sentence_ends
            cut.append([text[start:end] for start, end in pairwise(ends)])
        return cut


def oracle_versions() -> dict[str, str]:
    """What decides a score beside the models' weights."""
    return {**SentenceSplitter.versions(), "transformers": version("transformers"), "rouge-lsum": ROUGE_VERSION}
