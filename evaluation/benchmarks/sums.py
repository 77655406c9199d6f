"""Multi-step sums, made from a seed: `17+58+24=` is right when the number after the last `=` is 99.

The problems are the test split of `lco.prompts.make_sums`: no text of it is ever in the training or validation split.
"""

from typing import TYPE_CHECKING

from evaluation.benchmarks.base import Benchmark
from evaluation.config import SumsBenchmark
from evaluation.types import Example, Score
from lco.answers import grade
from lco.prompts import make_sums

if TYPE_CHECKING:
    from evaluation.graders import Graders


class Sums(Benchmark[SumsBenchmark]):
    """Held-out multi-step sums; Pass@1 by the number after the last `=`."""

    name = "sums"
    version = 1
    metrics = ("pass@1", "no-answer", "truncated")

    def load(self) -> list[Example]:
        """The problems of the configuration's split and seed."""
        return [Example(prompt.id, prompt.text, prompt.reference) for prompt in make_sums(self.config.problems)]

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """1 where the final number is the sum."""
        graded = grade(completion, example.reference, "last-equals")
        return Score(float(graded.is_correct), graded.verdict, graded.extracted)
