"""Configurations of the math benchmarks: prompt, extraction and tolerance are part of what is measured. No torch."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from evaluation.benchmark_config import BenchmarkBase
from lco.config import DataSource
from lco.grading.numeric import RELATIVE_TOLERANCE

INSTRUCTION = "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."


class MathBenchmark(BenchmarkBase):
    """What the math benchmarks share."""

    source: DataSource
    """The problems: a JSON, JSON Lines, CSV or Parquet file (also .gz); from Python and on the command line also
    `hub:ORG/NAME@<40-hex revision>/PATH/IN/REPO`."""
    num_problems: PositiveInt = 1_000_000
    """The first rows of the file that are used; fewer when the file is shorter."""
    prompt: str = INSTRUCTION
    """What the model is given, by its chat template where it has one; `{problem}` is replaced."""
    is_raw: bool = False
    """Give the prompt as it stands, without the chat template: for base models, with a prompt such as
    `Problem:\\n{problem}\\n\\nSolution:` and the stop string `Problem:`."""
    extraction: Literal["boxed", "any"] = "boxed"
    """Where the answer stands: in the last box or the line that declares the final answer; or in the last answer
    pattern of the text."""
    relative_tolerance: Annotated[float, Field(ge=0, le=0.1)] = RELATIVE_TOLERANCE
    """Largest relative difference from a reference that is a decimal or in e-notation."""
    rounded_references: bool = False
    """References that are integers or fractions are rounded quantities too: the tolerance holds for them as well."""
    max_tokens: PositiveInt = 2048
    """Longest completion; 4096 or more for models that think at length."""

    @field_validator("prompt")
    @classmethod
    def _prompt_has_a_place_for_the_problem(cls, prompt: str) -> str:
        if prompt.count("{problem}") != 1:
            raise ValueError("the prompt needs {problem} once")
        return prompt


class Math500Benchmark(MathBenchmark):
    """MATH-500: 500 competition problems; Pass@1 by equality of formulas."""

    name: Literal["math-500"] = "math-500"


class Amc23Benchmark(MathBenchmark):
    """AMC 2023: 40 problems with integer answers."""

    name: Literal["amc-23"] = "amc-23"


class Aime24Benchmark(MathBenchmark):
    """AIME 2024: 30 problems with integer answers."""

    name: Literal["aime-24"] = "aime-24"
    max_tokens: PositiveInt = 4096
    """Longest completion."""


class MinervaMathBenchmark(MathBenchmark):
    """MinervaMath: 272 undergraduate problems in science, most with rounded physical quantities as answers."""

    name: Literal["minerva-math"] = "minerva-math"
    rounded_references: bool = True
    """References that are integers or fractions are rounded quantities too: the tolerance holds for them as well."""
