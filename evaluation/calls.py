"""Slow calls, several at a time, answered in the order in which they end. No torch."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

GRACE_SECONDS = 15.0
"""How long calls under way may still end, and be recorded, when nobody asks for their answers any more."""


def answered(items: Iterable[T], call: Callable[[T], R], num_threads: int) -> Iterator[tuple[T, R]]:
    """Each item with what the call made of it, as soon as it is made.

    Items are taken as threads get free, so an endless iterable is fine. The threads do not keep the process from
    ending: what they wait for can take minutes.

    Raises:
        Exception: the first that a call raised, after the calls under way had `GRACE_SECONDS` to end.
    """
    waiting: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[T, R | None, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while not isinstance(item := waiting.get(), _End):
            try:
                done.put((item, call(item), None))
            except BaseException as error:  # whatever it is, the thread that asked must hear of it
                done.put((item, None, error))

    source = iter(items)
    threads: list[threading.Thread] = []
    num_under_way = 0
    try:
        has_more = True
        while has_more or num_under_way:
            while has_more and num_under_way < num_threads:
                item = next(source, _END)
                if isinstance(item, _End):
                    has_more = False
                    break
                waiting.put(item)
                num_under_way += 1
                if len(threads) < min(num_under_way, num_threads):
                    threads.append(threading.Thread(target=work, name="call", daemon=True))
                    threads[-1].start()
            if num_under_way:
                item, result, error = done.get()
                num_under_way -= 1
                if error is not None:
                    raise error
                yield item, result  # type: ignore[misc]  # no error: R is what the call returned
    finally:
        for _ in threads:
            waiting.put(_END)
        until = time.monotonic() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


class _End:
    """Says that no item follows."""


_END = _End()
