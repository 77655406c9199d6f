"""Configuration of a judge that compares two outputs, and of the benchmark that is made of it. No torch."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from evaluation.benchmark_config import BenchmarkBase
from lco.config import Config, DataSource
from lco.endpoint_config import EndpointConfig


class JudgeConfig(Config):
    """AlpacaEval 2.0's judge; the defaults are `weighted_alpaca_eval_gpt4_turbo`, but for the model."""

    endpoint: EndpointConfig
    """Who judges. The published numbers are gpt-4-1106-preview's; another model's are another benchmark's."""
    weighting: Literal["logprobs", "sampled-token"] = "logprobs"
    """How a reply becomes a preference: by the log-probabilities of both answers, or by the sampled answer alone, for a
    server that gives none. Results of the second are marked `unweighted`; one run never mixes the two."""
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 1
    """Longest reply. Only a sampled answer may be longer than one token, as that of a model that reasons."""
    temperature: Annotated[NonNegativeFloat, Field(le=2)] = 1.0
    """It changes a sampled answer, not log-probabilities."""
    top_logprobs: Annotated[int, Field(ge=2, le=20)] = 5
    """Candidates of the first token that are asked for."""

    @model_validator(mode="after")
    def _weights_are_of_the_answer(self) -> "JudgeConfig":
        if self.weighting == "logprobs" and self.max_tokens != 1:
            raise ValueError("max_tokens: log-probabilities are those of a single token; write 1, or `sampled-token`")
        return self

    @property
    def annotator(self) -> str:
        """Name of the annotator in `annotations.json`; alpaca_eval's own for its own judge."""
        weighted = "weighted" if self.weighting == "logprobs" else "unweighted"
        model = self.endpoint.model
        return f"{weighted}_alpaca_eval_{'gpt4_turbo' if model == 'gpt-4-1106-preview' else model}"


class AlpacaEval2Benchmark(BenchmarkBase):
    """AlpacaEval 2.0: win rate against reference outputs by a judge, raw and controlled for length, in percent."""

    name: Literal["alpaca-eval-2"] = "alpaca-eval-2"
    reference: DataSource
    """The baseline's `model_outputs.json`: rows of `instruction`, `output`, `generator`, and `index` or in order."""
    judge: JudgeConfig
    """Who compares."""
    difficulty: DataSource | None = None
    """CSV of `index, instruction_difficulty`. Without it there is no length-controlled win rate."""
    gamed_baseline: DataSource | None = None
    """`df_gamed.csv`, the baseline against itself. Without it there is no length-controlled win rate."""
    num_examples: PositiveInt = 805
    """The first rows of the file that are used; fewer when the file is shorter."""
    max_tokens: PositiveInt = 2048
    """Longest completion."""
    num_resamples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples of the bootstrap interval of the length-controlled win rate; 0 for none."""
    bootstrap_seed: NonNegativeInt = 0
    """Seed of the resamples."""
