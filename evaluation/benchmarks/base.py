"""What every benchmark can do: load its examples, score one completion, and make metrics of many."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, TypeVar

from evaluation.benchmark_config import BenchmarkBase
from evaluation.records import content_key
from evaluation.types import Completion, Example, Item, Score

if TYPE_CHECKING:
    from evaluation.graders import Graders

ConfigT = TypeVar("ConfigT", bound=BenchmarkBase)


class Benchmark(ABC, Generic[ConfigT]):
    """A benchmark in one configuration."""

    name: ClassVar[str]
    """Lower-kebab name, the key of the table BENCHMARKS."""
    version: ClassVar[int]
    """Grows when anything changes a number."""
    metrics: ClassVar[tuple[str, ...]]
    """What `aggregate` returns, the headline first."""
    default_source: ClassVar[str] = ""
    """Where the data comes from when nothing else is said: `hub:ORG/NAME@REVISION/PATH`; empty where there is none."""
    file_names: ClassVar[tuple[str, ...]] = ()
    """Names under which the data is looked for in a directory of data."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    def form(self) -> Literal["generate", "likelihood"]:
        """Whether completions are sampled, or the examples' choices compared by likelihood."""
        return "generate"

    @abstractmethod
    def load(self) -> list[Example]:
        """The examples, in a fixed order."""

    @cached_property
    def examples(self) -> list[Example]:
        """The examples, loaded once."""
        return self.load()

    def manifest(self) -> str:
        """Hash of the loaded rows: another one is another benchmark."""
        return content_key(examples=[asdict(example) for example in self.examples])

    def grader_versions(self) -> Mapping[str, str]:
        """What grades, and in which version: kept with every result."""
        return {}

    def prepare(self, graders: "Graders") -> None:
        """Opens what grading needs, so that what is missing or wrong is refused before anything is generated.

        Raises:
            ValueError: something that grading needs is not there, or not what it should be.
        """

    @abstractmethod
    def score(self, example: Example, completion: str, graders: "Graders") -> Score:
        """Grades one completion. Model text can be wrong; it cannot raise."""

    def score_item(self, item: Item, graders: "Graders") -> Score:
        """Grades one completion with all that is known of it: here, by its text alone."""
        return self.score(item.example, item.completion, graders)

    def score_all(self, items: Iterable[Item], graders: "Graders") -> Iterator[tuple[int, Score]]:
        """Grades many, in any order; gives each score with its item's position as soon as there is one.

        An exception here is our side's failure: it costs the item its value, never the run.
        """
        for item in items:
            try:
                score = self.score_item(item, graders)
            except Exception as error:
                score = Score(None, "error", reason=f"{type(error).__name__}: {error}"[:500])
            yield item.position, score

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Metrics of one pass over the examples: here Pass@1 and the shares without an answer and truncated.

        Pass@1 is the mean over problems of the share of correct samples. Completions that our side failed to score are
        left out of it and counted by the caller.
        """
        count = len(completions)
        return {
            "pass@1": mean([sum(some) / len(some) for some in values_by_example(completions)]),
            "no-answer": sum(c.verdict == "no_answer" for c in completions) / count,
            "truncated": sum(c.truncated for c in completions) / count,
        }


def values_by_example(completions: Iterable[Completion]) -> list[list[float]]:
    """The scores of each example that has any, in the order of first mention."""
    values: dict[str, list[float]] = defaultdict(list)
    for completion in completions:
        if completion.value is not None:
            values[completion.example_id].append(completion.value)
    return list(values.values())


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None
