"""AIME 2024: the 30 problems of both papers, answers integers from 0 to 999.

A row is `{"problem": "Every morning Aya goes ...", "answer": "204", ...}`; `033` is 33.
"""

from evaluation.benchmarks.math_problems import MathProblems, answer_text
from evaluation.data import Row
from evaluation.math_config import Aime24Benchmark


class Aime24(MathProblems[Aime24Benchmark]):
    """AIME 2024; Pass@1 by equality of numbers."""

    name = "aime-24"
    version = 1
    file_names = ("aime24_test.jsonl", "aime-24.jsonl", "aime24.jsonl")

    def example_of(self, row: Row) -> tuple[str, str]:
        """The problem and its `answer`."""
        return row.text("problem" if "problem" in row.fields else "question"), answer_text(row)
