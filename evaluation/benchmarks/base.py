"""What every benchmark can do: load its examples, score one completion, and make metrics of many."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from evaluation.types import Completion, Example, Score
from lco.config import Config

ConfigT = TypeVar("ConfigT", bound=Config)


class Benchmark(ABC, Generic[ConfigT]):
    """A benchmark in one configuration."""

    name: ClassVar[str]
    """Lower-kebab name, the key of the table BENCHMARKS."""
    version: ClassVar[int]
    """Grows when anything changes a number."""
    metrics: ClassVar[tuple[str, ...]]
    """What `aggregate` returns, the headline first."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @abstractmethod
    def load(self) -> list[Example]:
        """The examples, in a fixed order."""

    @abstractmethod
    def score(self, example: Example, completion: str) -> Score:
        """Grades one completion. Model text can be wrong; it cannot raise."""

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Metrics of one pass over the examples: here Pass@1 and the shares without an answer and truncated.

        Completions that our side failed to score are left out of Pass@1 and counted by the caller.
        """
        scored = [completion for completion in completions if completion.correct is not None]
        count = len(completions)
        return {
            "pass@1": sum(bool(c.correct) for c in scored) / len(scored) if scored else None,
            "no-answer": sum(c.verdict == "no_answer" for c in completions) / count,
            "truncated": sum(c.truncated for c in completions) / count,
        }
