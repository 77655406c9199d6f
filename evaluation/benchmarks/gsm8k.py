"""GSM8K: grade-school word problems (Cobbe et al. 2021), https://github.com/openai/grade-school-math.

A row is `{"question": "...", "answer": "... #### 18"}`; the reference is what follows `####`, without thousands
separators.
"""

from typing import TYPE_CHECKING

from evaluation.benchmarks.base import Benchmark
from evaluation.config import Gsm8kBenchmark
from evaluation.types import Example, Score
from lco.answers import grade
from lco.prompts import load_prompts

if TYPE_CHECKING:
    from evaluation.graders import Graders


class Gsm8k(Benchmark[Gsm8kBenchmark]):
    """GSM8K; Pass@1 by exact comparison of the final number."""

    name = "gsm8k"
    version = 1
    metrics = ("pass@1", "no-answer", "truncated")

    def load(self) -> list[Example]:
        """The first problems of the file."""
        return [Example(prompt.id, prompt.text, prompt.reference) for prompt in load_prompts(self.config.problems)]

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """1 where the final number equals the reference."""
        graded = grade(completion, example.reference, self.config.extraction)
        return Score(float(graded.is_correct), graded.verdict, graded.extracted)
