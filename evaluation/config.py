"""Configuration of an evaluation: which policy, benchmarks, decodings and eval seeds. No torch."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from evaluation.benchmark_config import BenchmarkBase
from evaluation.judge_config import AlpacaEval2Benchmark
from evaluation.math_config import Aime24Benchmark, Amc23Benchmark, Math500Benchmark, MinervaMathBenchmark
from evaluation.mmlu_config import MmluBenchmark, MmluReduxBenchmark
from evaluation.qa_feedback_config import QaFeedbackBenchmark
from lco.config import Config, Fraction, ModelSource, OptimalPolicySource, StageConfig
from lco.config import Gsm8k as Gsm8kPrompts
from lco.config import Sums as SumsPrompts
from lco.endpoint_config import EndpointConfig


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a completion is drawn: temperature 0 is greedy and has no seed."""

    temperature: float
    top_p: float


_DECODING = re.compile(r"t(?P<temperature>\d+(\.\d+)?)(-p(?P<top_p>0?\.\d+|1(\.0)?))?", re.ASCII)


def parse_decoding(label: str) -> Decoding:
    """The decoding that a label names: `greedy`, `t1.0`, `t0.6-p0.95`.

    Raises:
        ValueError: the label has another form, or a temperature or top-p out of range.
    """
    if label == "greedy":
        return Decoding(temperature=0.0, top_p=1.0)
    match = _DECODING.fullmatch(label)
    if match is None or not 0 < float(match["temperature"]) <= 10 or float(match["top_p"] or 1) == 0:
        raise ValueError(f"{label!r} is no decoding; write `greedy`, `t1.0` or `t0.6-p0.95`")
    return Decoding(temperature=float(match["temperature"]), top_p=float(match["top_p"] or 1.0))


def _checked_label(label: str) -> str:
    parse_decoding(label)
    return label


DecodingLabel = Annotated[str, AfterValidator(_checked_label)]


class SumsBenchmark(BenchmarkBase):
    """Held-out multi-step sums: Pass@1 of the number after the last `=`."""

    name: Literal["sums"] = "sums"
    problems: SumsPrompts = SumsPrompts(split="test")
    """The problems; the same ones for every train seed, because the train seed is not added to their seed here."""
    max_tokens: PositiveInt = 64
    """Longest completion."""


class Gsm8kBenchmark(BenchmarkBase):
    """GSM8K: Pass@1 of the final number, compared exactly."""

    name: Literal["gsm8k"] = "gsm8k"
    problems: Gsm8kPrompts
    """The problems."""
    extraction: Literal["boxed", "final-number", "any"] = "boxed"
    """How the final answer is found: in the last `\\boxed{}` or the line that declares it, such as `#### 18`; as the
    last number of the text; or in the last answer pattern of any kind."""


BenchmarkConfig = Annotated[
    SumsBenchmark
    | Gsm8kBenchmark
    | Math500Benchmark
    | Amc23Benchmark
    | MinervaMathBenchmark
    | Aime24Benchmark
    | AlpacaEval2Benchmark
    | MmluBenchmark
    | MmluReduxBenchmark
    | QaFeedbackBenchmark,
    Field(discriminator="name"),
]


class EndpointPolicy(Config):
    """A policy behind an endpoint that answers chat completions, such as a vLLM server."""

    endpoint: EndpointConfig
    """Where it is, and how it is asked."""


class EvalConfig(StageConfig):
    """Pass@1 of one policy on benchmarks, over decodings and eval seeds."""

    policy: ModelSource | OptimalPolicySource | EndpointPolicy
    """The policy to evaluate. A reward model is one too: it is sampled. So is pi*, decoded from a policy and a reward
    model without training, and any model behind an OpenAI-compatible endpoint."""
    benchmarks: Annotated[list[BenchmarkConfig], Field(min_length=1)]
    """What is measured; one entry per benchmark name."""
    decodings: Annotated[list[DecodingLabel], Field(min_length=1)] = ["t0.6-p0.95"]
    """`greedy` (one pass, no eval seed) or `tT-pP`: sampling at temperature T with top-p P, one pass per eval seed."""
    eval_seeds: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 63)]], Field(min_length=1)] = [0, 1, 2, 3]
    """Seeds of the sampling passes; each completion's own seed is a hash of eval seed, example and sample."""
    samples_per_example: Annotated[int, Field(ge=1, le=1024)] = 1
    """Completions of each example in a sampling pass; a greedy pass makes one."""
    pass_at: Annotated[list[PositiveInt], Field(max_length=16)] = []
    """Each k of which Pass@k and maj@k are told beside Pass@1; at most `samples_per_example`."""
    max_error_rate: Fraction = 0.05
    """Share of a benchmark's completions that our side may fail to make or to score before the evaluation fails."""
    batch_size: PositiveInt = 256
    """Completions sampled at a time. Changes speed and memory; a result only where two tokens tie in the last bit."""

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> "EvalConfig":
        for field, values in (
            ("benchmarks", [benchmark.name for benchmark in self.benchmarks]),
            ("decodings", self.decodings),
            ("eval_seeds", self.eval_seeds),
            ("pass_at", self.pass_at),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{field}: {values} names one twice")
        if too_many := [k for k in self.pass_at if k > self.samples_per_example]:
            raise ValueError(f"pass_at: {too_many} of {self.samples_per_example} samples_per_example")
        return self
