"""Configuration of the benchmark QA-Feedback. No torch."""

from typing import Literal

from pydantic import PositiveInt

from evaluation.benchmark_config import BenchmarkBase, DatasetSource
from lco.config import QaFeedback


class QaFeedbackBenchmark(BenchmarkBase):
    """QA-Feedback (arXiv 2306.01693): relevance, factuality, completeness of long answers, by three reward models."""

    name: Literal["qa-feedback"] = "qa-feedback"
    source: DatasetSource
    """Rows `{text, question, answer, passages}`: the authors' `dev.json` or `test.json`; `answer` lists references."""
    oracle: QaFeedback
    """The three reward models."""
    num_questions: PositiveInt = 1_000_000
    """The first rows that are used; fewer when there are fewer."""
    instruction: str = "{text}"
    """What the policy is given; `{text}` is the row's question with its passages, `{question}` the question alone."""
    max_tokens: PositiveInt = 200
    """Longest completion; the authors' own length."""
