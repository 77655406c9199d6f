"""What every benchmark can do: load its examples, score one completion, and make metrics of many."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from evaluation.benchmark_config import BenchmarkBase
from evaluation.records import content_key
from evaluation.statistics import clustered_standard_error, mean_of
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
    units: ClassVar[Mapping[str, Literal["percent", "number"]]] = {}
    """Of the metrics that are no fractions in [0, 1]."""
    recorded: ClassVar[Mapping[str, str]] = {"pass@1": ""}
    """Metrics that are means over examples of a number in each completion's record, the better the greater: which of
    the completion's `values`; empty for its `value`. Those in percent are kept as fractions."""
    floors: ClassVar[tuple[str, ...]] = ()
    """Further metrics that are the better the greater; their standard error comes with the result, if there is one."""
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

    @cached_property
    def example_keys(self) -> list[str]:
        """Hash of each example, made once."""
        return [content_key(**asdict(example)) for example in self.examples]

    @cached_property
    def data_sha256(self) -> str:
        """`manifest`, made once."""
        return self.manifest()

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

    def by_example(self, completions: Sequence[Completion]) -> dict[str, dict[str, float]]:
        """Of each metric that is a mean over examples, every example's own value, by its id.

        Here Pass@1, which is the mean of the example's scores, and those of `SHARES`, of the metrics that the benchmark
        names. A completion that our side failed to score is left out of Pass@1.
        """
        scores: dict[str, list[float]] = defaultdict(list)
        some: dict[str, list[Completion]] = defaultdict(list)
        for completion in completions:
            some[completion.example_id].append(completion)
            if completion.value is not None:
                scores[completion.example_id].append(completion.value)
        found = {"pass@1": {example: sum(values) / len(values) for example, values in scores.items()}}
        for metric, is_one in SHARES.items():
            found[metric] = {example: sum(map(is_one, each)) / len(each) for example, each in some.items()}
        return {metric: found[metric] for metric in self.metrics if metric in found}

    def aggregate(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Metrics of one pass over the examples: here the means of `by_example`. None where nothing has a value."""
        return {metric: mean_of(values.values()) for metric, values in self.by_example(completions).items()}

    def standard_errors(self, completions: Sequence[Completion]) -> dict[str, float | None]:
        """Standard errors over examples of the metrics that have one: here of the means of `by_example`."""
        return {
            metric: clustered_standard_error(list(values.values()))
            for metric, values in self.by_example(completions).items()
        }

    def warnings(self, completions: Sequence[Completion]) -> list[str]:
        """What a reader of a pass's metrics should know."""
        return []

    def documents(self, completions: Sequence[Completion], policy: str) -> Mapping[str, list[dict[str, Any]]]:
        """A pass in the formats of others, by file name: rows that their tools read.

        Args:
            policy: the name that the rows give to what was evaluated.
        """
        return {}


SHARES: dict[str, Callable[[Completion], bool]] = {
    "no-answer": lambda completion: completion.verdict == "no_answer",
    "truncated": lambda completion: completion.truncated,
}
"""Metrics that any benchmark with answers may name: the share of completions of which this is true."""
