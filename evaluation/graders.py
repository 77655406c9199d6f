"""What benchmarks grade with, opened when it is first asked for and closed at the end. No torch until then."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from evaluation.judge_config import JudgeConfig
from evaluation.records import Journal, content_key
from lco.grading.grader import Grader

if TYPE_CHECKING:
    from evaluation.judge import Judge

JOURNAL = "replies.jsonl"
FORMULAS = "formulas.jsonl"


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> None:
        """Ends it."""


ClosableT = TypeVar("ClosableT", bound=Closable)


class Graders:
    """Graders of one evaluation: each is opened once, by whoever asks first, from any thread."""

    def __init__(self, directory: Path, earlier: Sequence[Path] = ()) -> None:
        """Opens nothing yet.

        Args:
            directory: where the journal of replies is kept.
            earlier: the directories of earlier attempts, newest first.
        """
        self._directory = directory
        self._earlier = earlier
        self._stack = ExitStack()
        self._opened: dict[str, Any] = {}
        self._prices: list[Callable[[], float]] = []
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def journal(self) -> Journal:
        """Where graders record what they paid for or waited for, under a content key; each line waits for the disk."""
        earlier = [directory / JOURNAL for directory in self._earlier]
        return self.opened("journal", lambda: Journal(self._directory / JOURNAL, earlier))

    @property
    def math(self) -> Grader:
        """The grader of math answers; its processes start with the first formula."""

        def make() -> Grader:
            self._directory.mkdir(parents=True, exist_ok=True)
            earlier = [directory / FORMULAS for directory in self._earlier]
            store = self.opened("formulas", lambda: Journal(self._directory / FORMULAS, earlier, sync_seconds=5.0))
            return Grader(store=store)

        return self.opened("math", make)

    def judge(self, config: JudgeConfig) -> "Judge":
        """The judge of a configuration; no call whose reply the journal has is made again."""
        from evaluation.judge import Judge  # the SDK takes most of a second to load

        return self.opened(
            f"judge {content_key(config=config.model_dump(mode='json'))}",
            lambda: Judge(config, journal=self.journal),
            price=lambda judge: judge.endpoint.budget.spent,
        )

    @property
    def price(self) -> float:
        """What all graders together cost so far, in US dollars."""
        with self._lock:
            return sum(price() for price in self._prices)

    def opened(
        self, name: str, make: Callable[[], ClosableT], price: Callable[[ClosableT], float] | None = None
    ) -> ClosableT:
        """The grader of a name, made now if it was not asked for before.

        Args:
            price: what it cost so far; None where it costs nothing.
        """
        with self._lock:
            if name not in self._opened:
                grader = make()
                self._stack.callback(grader.close)
                self._opened[name] = grader
                if price is not None:
                    self._prices.append(partial(price, grader))
            found: ClosableT = self._opened[name]
            return found

    def close(self) -> None:
        """Closes everything that was opened, the last first."""
        with self._lock:
            self._opened.clear()
            self._stack.close()
