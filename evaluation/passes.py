"""What an evaluation consists of: passes over benchmarks, and the samples of each. No torch."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, get_args

from evaluation.benchmarks import BENCHMARKS, Benchmark
from evaluation.config import EvalConfig, parse_decoding
from evaluation.generation import Generation, Request
from evaluation.records import content_key
from evaluation.types import Example
from lco.config import Config, Source
from lco.endpoint_config import Operational
from lco.seeds import derived_seed

LIKELIHOOD = "likelihood"
"""The decoding under which benchmarks of the likelihood form are tabled: nothing is sampled."""


@dataclass(frozen=True)
class Pass:
    """One benchmark in one decoding with one eval seed: what one row of results is made of."""

    benchmark: Benchmark[Any]
    decoding: str
    eval_seed: int | None
    """None where nothing is random."""
    samples_per_example: int
    system_prompt: str = ""

    def samples(self) -> Iterator["Sample"]:
        """What is to be completed, in the order of the records: by example, then by sample."""
        temperature, top_p = 0.0, 1.0
        if self.decoding != LIKELIHOOD:
            decoding = parse_decoding(self.decoding)
            temperature, top_p = decoding.temperature, decoding.top_p
        for example, example_key in zip(self.benchmark.examples, self.benchmark.example_keys, strict=True):
            for sample_index in range(self.samples_per_example):
                request = Request(
                    example_id=example.id,
                    sample_index=sample_index,
                    prompt=example.prompt,
                    is_raw=example.is_raw,
                    system_prompt=self.system_prompt,
                    seed=derived_seed("eval", self.eval_seed or 0, example.id, sample_index),
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=self.benchmark.config.max_tokens,
                    stop=tuple(self.benchmark.config.stop),
                    choices=example.choices if self.decoding == LIKELIHOOD else (),
                )
                yield Sample(self, example, example_key, request)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What was measured, readable. Data is named by the hash of its rows, not by where it lay."""
        benchmark = self.benchmark
        document: dict[str, Any] = {
            "benchmark": benchmark.name,
            "version": benchmark.version,
            "config": configured(benchmark.config),
            "data_sha256": benchmark.data_sha256,
            "graders": dict(benchmark.grader_versions()),
            "system_prompt": self.system_prompt,
            "decoding": self.decoding,
        }
        if self.decoding != LIKELIHOOD:
            document |= asdict(parse_decoding(self.decoding))
        return document

    @cached_property
    def scoring_hash(self) -> str:
        """Hash of all that a score depends on beside example and completion."""
        parts = ("benchmark", "version", "config", "graders")
        return content_key(**{part: self.configuration[part] for part in parts})

    @cached_property
    def configuration_hash(self) -> str:
        """Hash of `configuration`."""
        return content_key(**self.configuration)


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion to be made and scored."""

    owner: Pass
    example: Example
    example_key: str
    """Hash of the example."""
    request: Request

    def score_key(self, generation: Generation) -> str:
        """What the score of a completion is recorded under: the same text for the same example has the same score."""
        return content_key(
            scoring=self.owner.scoring_hash,
            example=self.example_key,
            text=generation.text,
            is_truncated=generation.is_truncated,
            choice_logprobs=generation.choice_logprobs,
        )


def passes_of(config: EvalConfig) -> Iterator[Pass]:
    """The passes of an evaluation in the order of its records.

    Raises:
        ValueError: the data of a benchmark is missing or wrong.
    """
    for benchmark_config in config.benchmarks:
        benchmark = BENCHMARKS[benchmark_config.name](benchmark_config)
        if not benchmark.examples:
            raise ValueError(f"benchmarks: {benchmark.name} has no examples")
        if benchmark.form == LIKELIHOOD:
            yield Pass(benchmark, LIKELIHOOD, None, 1, config.system_prompt)
            continue
        for decoding in config.decodings:
            if decoding == "greedy":
                yield Pass(benchmark, decoding, None, 1, config.system_prompt)
                continue
            for eval_seed in config.eval_seeds:
                yield Pass(benchmark, decoding, eval_seed, config.samples_per_example, config.system_prompt)


def configured(config: Config) -> dict[str, Any]:
    """A configuration as JSON without what decides no number: places of data and models, patience with servers.

    The same data or model elsewhere is the same benchmark; rows and weights have hashes of their own.
    """
    document: dict[str, Any] = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marks = [
            *field.metadata,
            *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ())),
        ]
        if any(isinstance(mark, Operational | Source) for mark in marks):
            del document[name]
        elif isinstance(value, Config):
            document[name] = configured(value)
    return document
