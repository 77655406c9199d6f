r"""MATH-500: the 500 test problems of MATH that Lightman et al. (arXiv 2305.20050) set apart, HuggingFaceH4/MATH-500.

A row is `{"problem": "Convert the point $(0,3)$ ...", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)", ...}`; further
fields (solution, subject, level, unique_id) are not read.
"""

from evaluation.benchmarks.math_problems import MathProblems, answer_text
from evaluation.data import Row
from evaluation.math_config import Math500Benchmark


class Math500(MathProblems[Math500Benchmark]):
    """MATH-500; Pass@1 by equality of formulas."""

    name = "math-500"
    version = 1
    file_names = ("math500_test.jsonl", "math-500.jsonl", "math500.jsonl")

    def example_of(self, row: Row) -> tuple[str, str]:
        """The problem and its `answer`."""
        return row.text("problem"), answer_text(row)
