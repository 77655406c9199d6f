r"""Grades completions: extraction, then our own comparison, then computer algebra. For rewards and benchmarks alike.

A verdict tells whose fault it is. `correct`, `wrong`, `no_answer`, `timeout` (the answer took too much time or memory)
and `skipped` (the answer is beyond the bounds of `screen`) are the text's doing: they count 1 or 0. `error` is ours: no
value.
"""

import atexit
import functools
import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from decimal import Decimal
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, Protocol, Self

from lco.grading import extraction as extractions
from lco.grading.comparison import Context, is_equal
from lco.grading.grade import Grade, Verdict
from lco.grading.latex import clean
from lco.grading.numeric import Number, Tolerance, agree, parse_number
from lco.grading.pool import WALL_SECONDS, AlgebraFailure, AlgebraPool, AlgebraReply, OverBudget
from lco.grading.quantity import read_quantity
from lco.grading.screen import MAX_CHARACTERS, refusal

GRADER = 1
"""Grows when anything changes a verdict."""


class Store(Protocol):
    """Where verdicts outlive the process: a journal by content key."""

    def get(self, key: str) -> dict[str, Any] | None:
        """What was put under a key."""

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keeps a value."""


@functools.cache
def grader_version() -> str:
    """Names the grader in results: verdicts of different versions are not compared."""
    try:
        return f"lco-grader {GRADER}, math-verify {version('math-verify')}, sympy {version('sympy')}"
    except PackageNotFoundError:
        return f"lco-grader {GRADER}"


def reference_answer(reference: str) -> str:
    r"""The final answer of a reference: of a whole solution its last `\boxed` or its line `#### N`, else all of it."""
    if "\\boxed" in reference or "\\fbox" in reference:
        boxes = extractions.joined_boxes(reference)
        values = {None if (number := parse_number(clean(box))) is None else number.value for box in boxes}
        if len(values) == 1 and None not in values:
            return boxes[-1]  # one number in two spellings
        return ", ".join(boxes) or extractions.extract_any(reference) or reference
    head, mark, answer = reference.rpartition("####")
    return answer.strip() if mark and (not head or head.endswith("\n")) else reference


class Grader:
    """Grades answers, with a pool of processes that is started when the first formula needs it. Thread-safe."""

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        store: Store | None = None,
        cache_size: int = 1 << 17,
        wall_seconds: float = WALL_SECONDS,
    ) -> None:
        """Starts nothing yet.

        Args:
            num_workers: processes for computer algebra; by the number of processors where nothing is said.
            store: keeps what the processes found beyond this one; the rest is cheaper to find again.
            cache_size: verdicts kept in memory.
            wall_seconds: time that the formulas of one answer may take together.
        """
        self._pool = AlgebraPool(num_workers)
        self._store = store
        self._cache: OrderedDict[tuple[str, str, Tolerance], tuple[Verdict, str | None]] = OrderedDict()
        self._cache_size = cache_size
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes."""
        self._pool.close()

    def check(self) -> None:
        """Starts a process now.

        Raises:
            ValueError: none can be started.
        """
        try:
            self._pool.version()
        except AlgebraFailure as error:
            raise ValueError(f"formulas cannot be graded here: {error}") from error

    def process_ids(self) -> list[int]:
        """The processes that were started so far and run now."""
        return self._pool.process_ids()

    def grade(
        self,
        completion: str,
        reference: str,
        extraction: str = "boxed",
        tolerance: Tolerance = Tolerance(),
    ) -> Grade:
        """Extracts the completion's final answer and compares it with the reference."""
        if extraction == "any" and len(completion) <= MAX_CHARACTERS and completion.strip() == reference.strip() != "":
            return Grade(completion, "correct")
        extracted = extractions.EXTRACTIONS[extraction](completion)
        if extracted is None:
            return Grade(None, "no_answer")
        return self.grade_answer(extracted, reference, tolerance)

    def grade_answer(self, answer: str, reference: str, tolerance: Tolerance = Tolerance()) -> Grade:
        r"""Compares a bare answer with the reference; a box in it is opened.

        Never raises: what the text causes is a verdict, and so is our own failure.
        """
        if "\\boxed" in answer or "\\fbox" in answer:
            answer = extractions.extract_boxed(answer) or ""
        if not answer.strip():
            return Grade(None, "no_answer")
        verdict, reason = self._cached(answer, reference, tolerance)
        return Grade(answer[:MAX_CHARACTERS], verdict, reason)

    def grade_all(
        self,
        items: Iterable[tuple[str, str]],
        extraction: str | None = "boxed",
        tolerance: Tolerance = Tolerance(),
    ) -> Iterator[tuple[int, Grade]]:
        """Grades many on all workers at once; gives each grade with its position as soon as there is one.

        Args:
            items: (completion, reference), read as they are needed.
            extraction: None where the completions are bare answers.
        """

        def one(text: str, reference: str) -> Grade:
            if extraction is None:
                return self.grade_answer(text, reference, tolerance)
            return self.grade(text, reference, extraction, tolerance)

        return self.run_all(functools.partial(one, text, reference) for text, reference in items)

    def run_all(self, questions: Iterable[Callable[[], Grade]]) -> Iterator[tuple[int, Grade]]:
        """Calls that grade, run on all workers at once; each result comes with its position as soon as it is there.

        Args:
            questions: calls of this grader's methods, made as they are needed.
        """

        def one(position: int, question: Callable[[], Grade]) -> tuple[int, Grade]:
            return position, question()

        num_threads = self._pool.num_workers + 1
        with ThreadPoolExecutor(num_threads, thread_name_prefix="grader") as threads:
            running: set[Future[tuple[int, Grade]]] = set()
            for position, question in enumerate(questions):
                running.add(threads.submit(one, position, question))
                if len(running) >= 8 * num_threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)

    def _cached(self, answer: str, reference: str, tolerance: Tolerance) -> tuple[Verdict, str | None]:
        if len(answer) > MAX_CHARACTERS:
            return "skipped", refusal(answer)
        key = (answer, reference, tolerance)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        verdict, reason = self._decided(answer, reference, tolerance)
        if verdict != "error":
            with self._lock:
                self._cache[key] = verdict, reason
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
        return verdict, reason

    def _decided(self, answer: str, reference: str, tolerance: Tolerance) -> tuple[Verdict, str | None]:
        asked = _Algebra(self._pool, tolerance, self._store, self._wall_seconds)
        try:
            return self._judged(answer, reference, tolerance, asked)
        except OverBudget as error:
            return "timeout", str(error)
        except AlgebraFailure as error:
            return "error", str(error)
        except RecursionError:
            return "skipped", "nested too deeply"
        except Exception as error:  # a fault of ours must not end a run
            return "error", f"{type(error).__name__}: {error}"[:500]

    def _judged(
        self, answer: str, reference: str, tolerance: Tolerance, algebra: "_Algebra"
    ) -> tuple[Verdict, str | None]:
        reference = reference_answer(reference)
        if " ".join(answer.split()) == " ".join(reference.split()):
            return "correct", None
        refused = refusal(answer)
        if refused is not None:
            return "skipped", refused
        if refusal(reference) is not None:
            return "wrong", f"the reference is {refusal(reference)}"
        equal = is_equal(answer, reference, Context(tolerance, algebra.decide))
        return ("correct" if equal else "wrong"), None if equal else algebra.reason


_BESIDE = re.compile(r"\d\s+\d")


@functools.cache
def shared_grader() -> Grader:
    """The one grader of this process, for whoever has none to hand on; it ends with the process."""
    grader = Grader()
    atexit.register(grader.close)
    return grader


class _Algebra:
    """The computer algebra of one answer: its parts share one budget of time."""

    def __init__(self, pool: AlgebraPool, tolerance: Tolerance, store: Store | None, wall_seconds: float) -> None:
        self._pool = pool
        self._tolerance = tolerance
        self._store = store
        self._wall_seconds = wall_seconds
        self._left = wall_seconds
        self.reason: str | None = None

    def decide(self, answer: str, reference: str) -> bool:
        """Whether two formulas are equal; numbers by our own rules, everything else as the worker says."""
        if _BESIDE.search(answer):
            return False  # two numbers side by side, which a parser would add or multiply
        if self._left < 0.05:
            raise OverBudget(f"took more than {self._wall_seconds:.1f} s")
        reply = self._reply(answer, reference)
        self.reason = reply.reason
        if reply.answer_value is None or reply.reference_value is None:
            return reply.is_equal
        first = _written(answer) or _constant(reply.answer_value)
        second = _written(reference) or _constant(reply.reference_value)
        if not (first.is_decimal or second.is_decimal or self._tolerance.for_exact):
            return reply.is_equal
        return agree(first, second, self._tolerance)

    def _reply(self, answer: str, reference: str) -> AlgebraReply:
        """The computer algebra's reply, from the store where it has one."""
        key = content_key(grader_version(), answer, reference)
        known = self._store.get(key) if self._store is not None else None
        if known is not None:
            if known.get("over"):
                raise OverBudget(str(known["over"]))
            return AlgebraReply(**known)
        started = time.monotonic()
        try:
            reply = self._pool.compare(answer, reference, self._left)
        except OverBudget as error:
            if self._store is not None and self._left == self._wall_seconds:
                self._store.put(key, {"over": str(error)})
            raise
        finally:
            self._left -= time.monotonic() - started
        if self._store is not None:
            self._store.put(key, asdict(reply))
        return reply


def content_key(*parts: str) -> str:
    """SHA-256, in hexadecimal, of some texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _written(text: str) -> Number | None:
    return parse_number(text) or read_quantity(clean(text)).number


def _constant(value: str) -> Number:
    """The number of a constant that is known to 30 digits."""
    return Number(Fraction(Decimal(value)))
