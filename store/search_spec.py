"""A search as it is written: what is varied, how many trials, by which metric the better half goes on."""

import math
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from lco.algorithms import TrainConfig
from lco.config import Config, DpoConfig, Gsm8k, Jsonl, SftConfig, Sums, Validation
from lco.metrics import METRICS
from store.errors import Invalid

AXIS = "trial"
"""The axis that a search adds; its values have a `name` and the searched values."""
VALIDATION_METRIC = "eval/accuracy"
_NAME = r"^[a-z][a-z0-9_]{0,63}$"
_DIGITS = 4
"""Significant digits of drawn numbers: more are noise, and documents are read by people."""


class Choice(Config):
    """One of some values, whatever their type."""

    choice: Annotated[list[Any], Field(min_length=1, max_length=100)]
    """The values; a grid takes each."""


class Uniform(Config):
    """A number between two others."""

    uniform: tuple[float, float]
    """Least and greatest."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.uniform[0] < self.uniform[1]:
            raise ValueError("uniform: the first number is the smaller one")
        return self


class LogUniform(Config):
    """A positive number between two others, each factor as likely as any other."""

    log_uniform: tuple[float, float]
    """Least and greatest, both positive."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not 0 < self.log_uniform[0] < self.log_uniform[1]:
            raise ValueError("log_uniform: two positive numbers, the first one smaller")
        return self


class IntUniform(Config):
    """A whole number between two others, both possible."""

    int_uniform: tuple[int, int]
    """Least and greatest."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.int_uniform[0] < self.int_uniform[1]:
            raise ValueError("int_uniform: the first number is the smaller one")
        return self


def _kind(value: Any) -> str:
    """Which range is meant: the one whose field is there."""
    names = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Config) else ()
    return next((name for name in ("choice", "uniform", "log_uniform", "int_uniform") if name in names), "")


Range = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[IntUniform, Tag("int_uniform")],
    Discriminator(
        _kind,
        custom_error_type="range",
        custom_error_message="this is one of choice, uniform, log_uniform and int_uniform",
    ),
]


class Halving(Config):
    """Successive halving: all trials get the same few iterations, the best of them `factor` times as many, and on."""

    factor: Annotated[int, Field(ge=2, le=16)] = 3
    """One in so many goes on from a rung to the next, which is so many times as long."""
    min_iterations: PositiveInt
    """Iterations of the first rung (of `sft`: steps)."""


class Member(Config):
    """A job that competes; written by the expansion of the matrix."""

    job: str
    trial: str
    arm: str
    parameters: dict[str, Any]


class SearchSpec(Config):
    """A search: jobs over the axis `trial` compete by a metric on data that nothing is reported of."""

    method: Literal["random", "grid"] = "random"
    """`random` draws `trials` times; `grid` takes every combination of `choice` values."""
    trials: Annotated[int, Field(ge=2, le=500)] | None = None
    """Draws of a random search; a grid has as many as it has combinations."""
    seed: NonNegativeInt = 0
    """Of the draws. The same document draws the same values."""
    metric: str = VALIDATION_METRIC
    """A metric that the jobs report while they train: `eval/accuracy` on their `validation`, or one of `train/`."""
    goal: Literal["max", "min"] = "max"
    """Whether more of the metric is better."""
    halving: Halving | None = None
    """Stops all but the best early; null runs every trial to its end."""
    space: Annotated[dict[Annotated[str, Field(pattern=_NAME)], Range], Field(min_length=1, max_length=20)]
    """Name -> what it may be; templates over the axis `trial` take it as `{trial.NAME}`."""
    equal_budget_over: str | None = None
    """An axis: trials compete only with those of the same value of it, so that each value, such as a method, gets the
    same number of trials, rungs and iterations. null lets all compete."""
    job: str | None = None
    """The template whose jobs compete, by its name; needed where several over `trial` train."""
    members: list[Member] = []
    """The jobs that compete; written by the expansion."""

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if self.method == "grid":
            if self.trials is not None:
                raise ValueError("trials: a grid takes every combination; leave it out")
            if wrong := [name for name, found in self.space.items() if not isinstance(found, Choice)]:
                raise ValueError(f"space.{wrong[0]}: a grid takes `choice` alone")
        elif self.trials is None:
            raise ValueError("trials: a random search needs their number")
        if self.metric not in METRICS or not self.metric.startswith(("train/", "eval/")):
            raise ValueError(
                f"metric: {self.metric[:64]!r} is none that a training run reports; never choose by what you report, "
                "such as a benchmark's metric"
            )
        return self


def trials_of(search: SearchSpec) -> list[dict[str, Any]]:
    """The values of the axis `trial`: for each its name and the searched values.

    Raises:
        ValueError: a grid has too many combinations, or draws cannot differ.
    """
    points: list[dict[str, Any]] = [{}]
    if search.method == "grid":
        for name, found in search.space.items():
            assert isinstance(found, Choice)
            points = [{**point, name: value} for point in points for value in found.choice]
            if len(points) > 500:
                raise ValueError("the grid has more than 500 combinations")
    else:
        points = _drawn(search)
    width = max(2, len(str(len(points) - 1)))
    return [{"name": f"t{position:0{width}}", **point} for position, point in enumerate(points)]


def _drawn(search: SearchSpec) -> list[dict[str, Any]]:
    """Different draws, each value from a generator of its own: another name in the space changes no other's draws."""
    points: list[dict[str, Any]] = []
    count = search.trials or 0
    for attempt in range(100 * count):
        point = {
            name: _draw(found, random.Random(f"search/{search.seed}/{name}/{attempt}"))
            for name, found in search.space.items()
        }
        if point not in points:
            points.append(point)
        if len(points) == count:
            return points
    raise ValueError(f"the space has fewer than {count} different points")


def _draw(found: Range, generator: random.Random) -> Any:
    match found:
        case Choice():
            return generator.choice(found.choice)
        case IntUniform():
            return generator.randint(*found.int_uniform)
        case Uniform():
            return _rounded(generator.uniform(*found.uniform))
        case LogUniform():
            low, high = map(math.log, found.log_uniform)
            return _rounded(math.exp(generator.uniform(low, high)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def rung_steps(search: SearchSpec, config: Config) -> list[int]:
    """Optimizer steps at the end of every rung of a job; the last is the job's own end.

    Raises:
        ValueError: jobs of this kind do not say beforehand how long they are.
    """
    if isinstance(config, TrainConfig):
        each, iterations = config.inner_epochs * config.steps_per_epoch, config.iterations
    elif isinstance(config, SftConfig):
        each, iterations = 1, config.steps
    elif search.halving is None:
        return [0]
    else:
        raise ValueError("halving: only `train` and `sft` jobs can be halved")
    ends = []
    if search.halving is not None:
        end = search.halving.min_iterations
        while end < iterations:
            ends.append(end)
            end *= search.halving.factor
    return [each * end for end in [*ends, iterations]]


def check_member(search: SearchSpec, config: Config, reported: Mapping[str, str], here: str) -> list[int]:
    """The rungs of a job that competes, once it is known to be a fair judge of itself.

    Args:
        reported: data that benchmarks of the document read -> where.
        here: pointer of the job.

    Raises:
        Invalid: the metric is not measured, or on data that is reported of.
    """
    try:
        steps = rung_steps(search, config)
    except ValueError as error:
        raise Invalid("/search/halving", str(error)) from None
    if search.halving is not None and len(steps) == 1:
        raise Invalid("/search/halving/min_iterations", "the jobs end before the first rung does")
    if search.metric != VALIDATION_METRIC:
        return steps
    validation: Validation | None = getattr(config, "validation", None)
    if isinstance(config, DpoConfig) or validation is None:
        raise Invalid(f"{here}/config/validation", f"the search goes by {VALIDATION_METRIC}: say on which problems")
    match validation.prompts:
        case Sums() as sums if sums.split == "test":
            raise Invalid(
                f"{here}/config/validation/prompts/split", "never choose by the test split; use the validation split"
            )
        case Gsm8k() | Jsonl() as rows:
            name = rows.path.rpartition("/")[2].rpartition(":")[2]
            if "test" in name.replace("-", "_").replace(".", "_").split("_"):
                raise Invalid(f"{here}/config/validation/prompts/path", "never choose by a test split")
            if rows.path in reported:
                raise Invalid(
                    f"{here}/config/validation/prompts/path",
                    f"{reported[rows.path]} reports on this data: never choose by what you report",
                )
    if wrong := [end for end in steps[:-1] if end % validation.every_steps]:
        raise Invalid(
            f"{here}/config/validation/every_steps",
            f"nothing is measured after step {wrong[0]}, where a rung ends: use a number that divides it",
        )
    return steps
