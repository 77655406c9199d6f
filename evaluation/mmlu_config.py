"""Configurations of MMLU and MMLU-Redux. No torch."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from evaluation.benchmark_config import BenchmarkBase, DatasetSource
from lco.config import Config

REVISION = "hub:cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe"


class LikelihoodForm(Config):
    """The most probable of the continuations ` A` to ` D` of lm-eval's prompt, which the model gets as it stands."""

    name: Literal["likelihood"] = "likelihood"


class GenerativeForm(Config):
    """A completion that declares a letter; the prompt goes through the chat template where there is one."""

    name: Literal["generate"] = "generate"
    instruction: str = (
        "Answer the following multiple choice question about {subject}. Reason step by step. The last line of your "
        'response must be "Answer: X", where X is one of A, B, C and D.'
    )
    """What stands before the question; `{subject}` is replaced."""


class _MmluBase(BenchmarkBase):
    """What both have."""

    form: Annotated[LikelihoodForm | GenerativeForm, Field(discriminator="name")] = LikelihoodForm()
    """How an answer is given: the forms differ by several points and are never merged."""
    num_shots: Annotated[int, Field(ge=0, le=5)] = 5
    """Answered questions of the same subject before the question: the first of the dev split."""
    dev: DatasetSource = f"{REVISION}/all/dev-00000-of-00001.parquet"
    """Rows of MMLU's dev split, five a subject; read where `num_shots` is not 0."""
    subjects: Annotated[list[str], Field(max_length=57)] = []
    """The subjects that are asked, by their names in the data; empty for all."""
    num_questions: PositiveInt = 1_000_000
    """The first rows of these subjects that are used; fewer when there are fewer."""
    max_tokens: PositiveInt = 1024
    """Longest completion of the generative form."""


class MmluBenchmark(_MmluBase):
    """MMLU (arXiv 2009.03300): 14,042 questions with four choices in 57 subjects."""

    name: Literal["mmlu"] = "mmlu"
    source: DatasetSource = f"{REVISION}/all/test-00000-of-00001.parquet"
    """Rows `{subject, question, choices, answer}`; `answer` is a letter or the number of a choice from 0."""


class MmluReduxBenchmark(_MmluBase):
    """MMLU-Redux 2.0 (arXiv 2406.04127): 5,700 questions of MMLU, with what experts found wrong with each."""

    name: Literal["mmlu-redux"] = "mmlu-redux"
    source: DatasetSource
    """Rows `{subject, question, choices, answer, error_type}`; a question without an error has the type `ok`."""
