"""Configuration of a scoring: outputs that people already have, and what grades them. No torch."""

from typing import Annotated, Any, Literal

from pydantic import Field

from evaluation.config import BenchmarkConfig
from lco.config import CompletionsSource, Config, DataSource, ModelSource, StageConfig

Rows = DataSource | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=5000)]
"""A JSON, JSON Lines or .gz file; or the rows themselves."""


class MathScore(Config):
    """Math answers: rows `{id, completion | answer, reference}`; rows that share an id are samples of one problem."""

    name: Literal["math"] = "math"
    rows: Rows
    """What is graded."""
    extraction: Literal["boxed", "any"] = "boxed"
    """Where the answer stands: the last box or declared final answer, or the last answer pattern of the text."""


class AlpacaEvalScore(Config):
    """AlpacaEval 2.0 of stored judgements: win rate and length-controlled win rate, in percent."""

    name: Literal["alpaca-eval"] = "alpaca-eval"
    annotations: Rows
    """alpaca_eval's `annotations.json`."""
    instructions: DataSource | None = None
    """The 805 instructions in their order, with `index` where rows have one."""
    difficulty: DataSource | None = None
    """CSV of `index, instruction_difficulty`."""
    gamed_baseline: DataSource | None = None
    """CSV of the gamed baseline's rows (`df_gamed.csv`)."""
    compat: Literal["none", "row-order"] = "none"
    """`row-order` joins the difficulty by row position, as the published figures do, instead of by instruction."""


class QaFeedbackScore(Config):
    """QA-Feedback: relevance, factuality and completeness of responses, from three reward models."""

    name: Literal["qa-feedback"] = "qa-feedback"
    rows: Rows
    """Rows with the prompt and the response."""
    relevance: ModelSource
    """Token classifier of sub-sentences."""
    factuality: ModelSource
    """Token classifier of sentences."""
    completeness: ModelSource
    """Sequence classifier with one logit."""


class MmluScore(Config):
    """MMLU answers: rows `{subject, id, prediction, answer, [error_type]}`; a null prediction is unanswered."""

    name: Literal["mmlu"] = "mmlu"
    rows: Rows
    """What is graded."""


class CompletionsScore(Config):
    """Completions of a finished evaluation, scored again by a benchmark: by a newer grader, or with another extraction.

    Nothing is generated. Prompts must be those that the completions answer; verdicts before and after are in the rows.
    """

    name: Literal["completions"] = "completions"
    completions: CompletionsSource
    """What is scored; completions of other benchmarks in it are left alone."""
    benchmark: BenchmarkConfig
    """The benchmark as it is to be scored now."""


Scoring = Annotated[
    MathScore | AlpacaEvalScore | QaFeedbackScore | MmluScore | CompletionsScore, Field(discriminator="name")
]


class ScoreConfig(StageConfig):
    """Grades outputs that exist already: no policy is sampled."""

    scoring: Scoring
    """What is graded, and how."""
