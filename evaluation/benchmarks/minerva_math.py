r"""MinervaMath: 272 problems of MIT OpenCourseWare (Lewkowycz et al., arXiv 2206.14858), "OCWCourses".

A row is `{"problem": "Each of the two Magellan telescopes ...", "solution": "... =\\boxed{1.6} \\mathrm{~cm}", ...}`;
the reference is the last box of the solution. 58 of the references are in e-notation (`4.5e33`), 67 are decimals and 62
integers, most of them rounded: the tolerance is part of the benchmark, 1e-4 relative as Qwen2.5-Math has it (DeepSeek
takes 1e-2: another `relative_tolerance`, and another benchmark configuration).
"""

from evaluation.benchmarks.math_problems import MathProblems, answer_text
from evaluation.data import Row
from evaluation.math_config import MinervaMathBenchmark
from lco.grading.extraction import extract_boxed


class MinervaMath(MathProblems[MinervaMathBenchmark]):
    """MinervaMath; Pass@1 by equality of formulas and, within the tolerance, of quantities."""

    name = "minerva-math"
    version = 1
    file_names = ("minerva_math_test.jsonl", "minerva-math.jsonl", "minerva_math.jsonl")

    def example_of(self, row: Row) -> tuple[str, str]:
        """The problem and the last box of its `solution`; its `answer` where the file has no solutions."""
        problem = row.text("problem" if "problem" in row.fields else "question")
        if "solution" not in row.fields:
            return problem, answer_text(row)
        reference = extract_boxed(row.text("solution"))
        if reference is None:
            raise row.error("has no boxed answer in its solution")
        return problem, reference
