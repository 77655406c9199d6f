"""AMC 2023: the 40 problems of the AMC 12 of 2023 whose answers are integers, as Qwen2.5-Math evaluates them.

A row is `{"question": "Cities $A$ and $B$ are ...", "answer": 27.0, ...}`: the answer is a JSON float and is compared
as the integer it is. `question` is the problem, with the form of the answer added where the choices had told it; files
with `problem` alone are read too.
"""

from evaluation.benchmarks.math_problems import MathProblems, answer_text
from evaluation.data import Row
from evaluation.math_config import Amc23Benchmark


class Amc23(MathProblems[Amc23Benchmark]):
    """AMC 2023; Pass@1 by equality of numbers."""

    name = "amc-23"
    version = 1
    file_names = ("amc23_test.jsonl", "amc-23.jsonl", "amc23.jsonl")

    def example_of(self, row: Row) -> tuple[str, str]:
        """The question and its `answer`."""
        return row.text("question" if "question" in row.fields else "problem"), answer_text(row)
