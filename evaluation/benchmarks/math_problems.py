"""What the math benchmarks share: problems from a file, answers compared by the grader of formulas."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from evaluation.benchmarks.base import Benchmark
from evaluation.data import Row, locate, read_rows
from evaluation.math_config import MathBenchmark
from evaluation.types import Completion, Example, Item, Score
from lco.grading.grade import Grade
from lco.grading.grader import grader_version
from lco.grading.numeric import Tolerance

if TYPE_CHECKING:
    from evaluation.graders import Graders

MathConfigT = TypeVar("MathConfigT", bound=MathBenchmark)


class MathProblems(Benchmark[MathConfigT]):
    """Problems with a final answer; Pass@1 by equality of the answers."""

    metrics = ("pass@1", "no-answer", "truncated", "grader-timeout", "grader-skipped")

    @abstractmethod
    def example_of(self, row: Row) -> tuple[str, str]:
        """Problem and reference answer of a row.

        Raises:
            ValueError: a field is missing; the message names file and row.
        """

    def load(self) -> list[Example]:
        """The first problems of the file."""
        examples: dict[str, Example] = {}
        for row in islice(read_rows(locate(self.config.source)), self.config.num_problems):
            problem, reference = self.example_of(row)
            if not problem.strip() or not reference.strip():
                raise row.error("has an empty problem or answer")
            identity = f"{self.name}/{hashlib.sha256(problem.encode('utf-8', 'replace')).hexdigest()[:16]}"
            if identity in examples:
                raise row.error("repeats a problem")
            prompt = self.config.prompt.replace("{problem}", problem)
            examples[identity] = Example(identity, prompt, reference, is_raw=self.config.is_raw)
        if not examples:
            raise ValueError(f"source: {self.config.source} has no rows")
        return list(examples.values())

    def grader_versions(self) -> Mapping[str, str]:
        """The grader with the libraries that it computes with."""
        return {"math": grader_version()}

    def prepare(self, graders: "Graders") -> None:
        """Starts the grader."""
        graders.math.check()

    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """1 where the final answer equals the reference."""
        return score_of(self._grade(example, completion, graders))

    def score_all(self, items: Iterable[Item], graders: "Graders") -> Iterator[tuple[int, Score]]:
        """Grades many on all of the grader's processes at once."""
        return score_items(items, lambda item: self._grade(item.example, item.completion, graders), graders)

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Those of every benchmark, and the shares that the grader gave up on or refused to look at."""
        count = len(completions)
        return super().aggregate(completions) | {
            "grader-timeout": sum(c.verdict == "timeout" for c in completions) / count,
            "grader-skipped": sum(c.verdict == "skipped" for c in completions) / count,
        }

    def _grade(self, example: Example, completion: str, graders: "Graders") -> Grade:
        tolerance = Tolerance(self.config.relative_tolerance, self.config.rounded_references)
        return graders.math.grade(completion, example.reference, self.config.extraction, tolerance)


def score_items(
    items: Iterable[Item], grade: Callable[[Item], Grade], graders: "Graders"
) -> Iterator[tuple[int, Score]]:
    """Scores of items, graded on all of the grader's processes at once; each with its item's position."""
    positions: list[int] = []

    def questions() -> Iterator[Callable[[], Grade]]:
        for item in items:
            positions.append(item.position)
            yield partial(grade, item)

    for number, found in graders.math.run_all(questions()):
        yield positions[number], score_of(found)


def score_of(grade: Grade) -> Score:
    """A grade as a benchmark's score."""
    return Score(grade.value, grade.verdict, grade.extracted, grade.reason)


def answer_text(row: Row, field: str = "answer") -> str:
    """A row's answer, a text or a number; 27.0 is 27.

    Raises:
        ValueError: there is none.
    """
    value = row.fields.get(field)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return row.text(field)
