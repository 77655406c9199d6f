"""What a suite says: benchmarks, a baseline, gates, triggers. `SuiteSpec` is submitted; `Plan` is its versioned part.

A change of the plan makes a new version, and every verdict names the one it is of. Description and triggers are no part
of it: what starts a verdict changes no number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import BenchmarkConfig, DecodingLabel, EvalConfig
from lco.config import Config, Fraction
from store.specs import Metadata, Name, Resources

BASELINE_PATTERN = r"^(alias:[a-z0-9][a-z0-9._-]{0,63}|ckpt_[0-9a-hjkmnp-tv-z]{26})$"
_ANY_CHECKPOINT = "ckpt_" + "0" * 26
"""Stands for the policy where a plan is checked as an evaluation."""
_LIKELIHOOD = "likelihood"
_Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


class Gate(Config):
    """What one metric must keep to: a floor, a largest drop against the baseline, or both."""

    benchmark: Annotated[str, Field(max_length=128)]
    """One of the suite's benchmarks."""
    metric: Annotated[str, Field(max_length=128)] = ""
    """A metric of it that is the better the greater; empty for the one of which every example's value is known first:
    `pass@1`, `accuracy`, `win_rate`."""
    decoding: Annotated[str, Field(max_length=128)] = ""
    """One of the suite's decodings, or `likelihood`; may be empty where the benchmark has only one."""
    min_value: float | None = None
    """The floor, in the metric's unit; null for none."""
    max_drop: Annotated[float, Field(ge=0)] | None = None
    """The largest drop against the baseline that is allowed, in the metric's unit; null for a floor alone. With 0 only
    what is better than the baseline passes."""

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.min_value is None and self.max_drop is None:
            raise ValueError("min_value, max_drop: a gate needs one of them")
        return self


class CheckpointFilter(Config):
    """Which new checkpoints are judged: those that meet everything said here."""

    kinds: Annotated[list[Literal["sft", "dpo", "train"]], Field(max_length=3)] = []
    """Kinds of the job that made it; empty for any."""
    metadata: Metadata = {}
    """What the job's `metadata` must hold."""
    step_multiple: PositiveInt = 1
    """Only checkpoints whose step is a multiple."""


class Triggers(Config):
    """What makes the platform judge a checkpoint by itself. Each one is judged once per version, however many fire."""

    checkpoints: CheckpointFilter | None = None
    """Every published model that is new since this was set and meets the filter; null for none."""
    aliases: Annotated[list[Name], Field(max_length=16)] = []
    """Whatever checkpoint one of these names comes to mean."""


class Promotion(Config):
    """A name that a checkpoint gets for its verdict."""

    alias: Name
    """The alias that is moved. Never to a checkpoint older than the one that it means."""
    on: Literal["pass", "improved"] = "pass"
    """`pass` moves it for an improved checkpoint as well."""


class Plan(Config):
    """What is measured and what is asked of it: the versioned part of a suite."""

    benchmarks: Annotated[list[BenchmarkConfig], Field(min_length=1, max_length=32)]
    """What is measured; one entry per benchmark name. `dataset:NAME` is its newest version when the plan is made."""
    decodings: Annotated[list[DecodingLabel], Field(min_length=1, max_length=16)] = ["t0.6-p0.95"]
    """As those of an evaluation."""
    eval_seeds: Annotated[list[_Seed], Field(min_length=1, max_length=64)] = [0, 1, 2, 3]
    """As those of an evaluation. More of them make the gates' tests sharper where completions are sampled."""
    samples_per_example: Annotated[int, Field(ge=1, le=1024)] = 1
    """Completions of each example in a sampling pass."""
    pass_at: Annotated[list[PositiveInt], Field(max_length=16)] = []
    """Each k of which Pass@k and maj@k are told beside Pass@1."""
    max_error_rate: Fraction = 0.05
    """Share of a benchmark's completions that our side may fail on before the evaluation fails."""
    batch_size: PositiveInt = 256
    """Completions sampled at a time."""
    system_prompt: Annotated[str, Field(max_length=16_384)] = ""
    """What the chat template says before every prompt."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the matrix products."""
    resources: Resources = Resources()
    """What an evaluation needs of the worker that takes it."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Of the evaluations among other runs."""
    baseline: Annotated[str, Field(pattern=BASELINE_PATTERN)]
    """What checkpoints are compared with: `alias:NAME`, taken when a verdict is asked for, or `ckpt_...`."""
    gates: Annotated[list[Gate], Field(min_length=1, max_length=64)]
    """What a checkpoint must keep to."""
    level: Annotated[float, Field(ge=0.0001, le=0.25)] = 0.05
    """The chance that any gate of a checkpoint equal to the baseline alarms, and that of a wrong pass at each gate."""
    max_left_out: Fraction = 0.05
    """Share of a gate's examples that may have no value on either side before it is inconclusive."""
    promote: Promotion | None = None
    """The name that a checkpoint gets for a good verdict; null for none."""

    @model_validator(mode="after")
    def _is_an_evaluation(self) -> Self:
        evaluation_of(self, _ANY_CHECKPOINT)
        if self.resources.num_processes > 1:
            raise ValueError("resources: an evaluation is one process; ask for one GPU at most")
        return self

    @model_validator(mode="after")
    def _gates_can_be_tested(self) -> Self:
        places = [(gate.benchmark, gate.metric, gate.decoding) for gate in whole_gates(self)]
        if len(set(places)) != len(places):
            raise ValueError("gates: two are of one metric, benchmark and decoding")
        return self


class SuiteSpec(Plan):
    """A suite, as it is submitted."""

    name: Name
    """Its name, once in a project."""
    description: Annotated[str, Field(max_length=2000)] = ""
    """What it is for."""
    triggers: Triggers = Triggers()
    """What makes the platform judge a checkpoint by itself."""

    def plan(self) -> Plan:
        """The versioned part."""
        return Plan.model_validate({name: getattr(self, name) for name in Plan.model_fields}, strict=False)


@dataclass(frozen=True, slots=True)
class WholeGate:
    """A gate with every name filled in."""

    benchmark: str
    metric: str
    decoding: str
    min_value: float | None
    max_drop: float | None
    record: str | None
    """How an example's value is read: which of a completion's `values`, empty for its `value`; None where it is not."""
    is_sampled: bool
    """The metric is one of several samples: Pass@k, maj@k, mean@n."""
    unit: Literal["fraction", "percent", "number"]

    @property
    def is_paired(self) -> bool:
        """Whether the metric is a mean of examples whose values are known."""
        return self.record is not None or self.is_sampled


def evaluation_of(plan: Plan, policy: str) -> EvalConfig:
    """The evaluation of one checkpoint.

    Raises:
        ValueError: the plan is none.
    """
    shared = EvalConfig.model_fields.keys() & Plan.model_fields.keys()
    fields = {name: getattr(plan, name) for name in shared}
    return EvalConfig.model_validate({**fields, "policy": policy}, strict=False)


def whole_gates(plan: Plan) -> Iterator[WholeGate]:
    """The gates with every name filled in.

    Raises:
        ValueError: one names what the plan does not measure, or what cannot be tested.
    """
    for place, gate in enumerate(plan.gates):
        try:
            yield _whole(plan, gate)
        except ValueError as error:
            raise ValueError(f"gates.{place}.{error}") from None


def _whole(plan: Plan, gate: Gate) -> WholeGate:
    configs: dict[str, Any] = {config.name: config for config in plan.benchmarks}
    if gate.benchmark not in configs:
        raise ValueError(f"benchmark: {gate.benchmark!r} is none of {', '.join(configs)}")
    benchmark = BENCHMARKS[gate.benchmark](configs[gate.benchmark])
    decodings = [_LIKELIHOOD] if benchmark.form == _LIKELIHOOD else plan.decodings
    decoding = gate.decoding or (decodings[0] if len(decodings) == 1 else "")
    if decoding not in decodings:
        raise ValueError(f"decoding: {gate.decoding!r} is none of {', '.join(decodings)}")
    is_greedy = decoding in (_LIKELIHOOD, "greedy")
    several = _sampled(plan) if "pass@1" in benchmark.recorded and not is_greedy else []
    metric = gate.metric or next(iter(benchmark.recorded))
    known = [*benchmark.recorded, *several, *benchmark.floors]
    if metric not in known and not any(metric.startswith(f"{name}/") for name in benchmark.recorded):
        raise ValueError(f"metric: {metric!r} is none that a gate can be set on: {', '.join(known)}")
    is_paired = metric in benchmark.recorded or metric in several
    if gate.max_drop is not None and not is_paired:
        raise ValueError(
            f"max_drop: {metric} is no mean of values of single examples, so that a drop cannot be tested by example; "
            f"set `min_value`, which is tested by the metric's standard error, or take "
            f"{', '.join([*benchmark.recorded, *several])}"
        )
    return WholeGate(
        benchmark=gate.benchmark,
        metric=metric,
        decoding=decoding,
        min_value=gate.min_value,
        max_drop=gate.max_drop,
        record=benchmark.recorded.get(metric),
        is_sampled=metric in several,
        unit=benchmark.units.get(metric, "fraction"),
    )


def _sampled(plan: Plan) -> list[str]:
    """Metrics that `evaluation.results.sampled_metrics` makes of several samples of an example."""
    if plan.samples_per_example == 1:
        return []
    of_k = [f"{name}@{k}" for k in plan.pass_at if k > 1 for name in ("pass", "maj")]
    return [*of_k, f"mean@{plan.samples_per_example}"]
