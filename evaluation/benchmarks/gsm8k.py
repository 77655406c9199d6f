"""GSM8K: grade-school word problems (Cobbe et al. 2021), https://github.com/openai/grade-school-math.

A row is `{"question": "...", "answer": "... #### 18"}`; the reference is what follows `####`, without thousands
separators.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from evaluation.benchmarks.base import Benchmark
from evaluation.benchmarks.math_problems import score_items, score_of
from evaluation.config import Gsm8kBenchmark
from evaluation.types import Example, Item, Score
from lco.grading.grade import Grade
from lco.grading.grader import grader_version
from lco.prompts import load_prompts

if TYPE_CHECKING:
    from evaluation.graders import Graders


class Gsm8k(Benchmark[Gsm8kBenchmark]):
    """GSM8K; Pass@1 by equality of the final number."""

    name = "gsm8k"
    version = 2
    metrics = ("pass@1", "no-answer", "truncated")
    file_names = ("gsm8k_test.jsonl.gz", "gsm8k_test.jsonl", "gsm8k.jsonl", "test.jsonl")

    def load(self) -> list[Example]:
        """The first problems of the file."""
        return [Example(prompt.id, prompt.text, prompt.reference) for prompt in load_prompts(self.config.problems)]

    def grader_versions(self) -> Mapping[str, str]:
        """The grader with the libraries that it computes with."""
        return {"math": grader_version()}

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """1 where the final number equals the reference."""
        return score_of(self._grade(example, completion, graders))

    def score_all(self, items: Iterable[Item], graders: "Graders") -> Iterator[tuple[int, Score]]:
        """Grades many on all of the grader's processes at once."""
        return score_items(items, lambda item: self._grade(item.example, item.completion, graders), graders)

    def _grade(self, example: Example, completion: str, graders: "Graders") -> Grade:
        return graders.math.grade(completion, example.reference, self.config.extraction)
