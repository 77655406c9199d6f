"""Server-sent events: one poller per process looks at all that is watched, and wakes streams whose subject changed.

A stream reads the database when it is woken, and once in a while; hundreds of idle streams cost one query per tick.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from uuid import UUID

from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from api.metrics import RequestMetrics
from store.database import Database
from store.repositories.jobs import Jobs
from store.repositories.records import Logs
from store.repositories.runs import Runs

logger = logging.getLogger("lco.api")

Kind = Literal["job", "run", "log"]
Topic = tuple[Kind, UUID]
"""What is watched: a job's events, a run's state, progress and metrics, or a run's log."""
TICK_SECONDS = 0.25
LONGEST_SECONDS = 600.0
"""Life of a stream; the browser comes back by itself and says where it was."""
RETRY_MILLISECONDS = 2000
_IDLE_SECONDS = 10.0
"""A stream that nothing woke looks by itself after this time."""

Step = tuple[list[ServerSentEvent], bool]
"""What one look found, and whether it was the last."""


class Hub:
    """Wakes event streams."""

    def __init__(self, database: Database, metrics: RequestMetrics) -> None:
        self._database = database
        self._metrics = metrics
        self._watchers: dict[Topic, set[asyncio.Event]] = {}
        self._marks: dict[Topic, Hashable] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_closed = False

    def close(self) -> None:
        """Ends all streams, so that a server that stops need not wait for them. Call it in the event loop's thread."""
        self.is_closed = True
        for events in self._watchers.values():
            for event in events:
                event.set()

    @contextmanager
    def watch(self, topic: Topic) -> Iterator[asyncio.Event]:
        """An event that is set whenever the topic changed, and at first."""
        event = asyncio.Event()
        event.set()
        self._watchers.setdefault(topic, set()).add(event)
        self._metrics.num_streams += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield event
        finally:
            self._metrics.num_streams -= 1
            self._watchers[topic].discard(event)
            if not self._watchers[topic]:
                del self._watchers[topic]
                self._marks.pop(topic, None)

    async def follow(self, topic: Topic, look: Callable[[], Step]) -> AsyncIterator[ServerSentEvent]:
        """The events of one stream: what `look` finds now and whenever the topic changes, until the last.

        Args:
            look: runs in a thread; remembers by itself how far it is.
        """
        deadline = time.monotonic() + LONGEST_SECONDS
        yield ServerSentEvent(comment="following", retry=RETRY_MILLISECONDS)
        with self.watch(topic) as changed:
            while time.monotonic() < deadline:
                await _wait(changed.wait(), min(_IDLE_SECONDS, deadline - time.monotonic()))
                changed.clear()
                if self.is_closed:
                    return
                events, is_last = await run_in_threadpool(look)
                for event in events:
                    yield event
                if is_last:
                    return

    async def _poll(self) -> None:
        """Looks at all topics every tick, as long as there are any."""
        while self._watchers and not self.is_closed:
            topics = list(self._watchers)
            try:
                marks = await run_in_threadpool(self._read, topics)
            except Exception as error:  # an outage of the database ends no stream
                logger.warning("event streams cannot look at the database: %s", type(error).__name__)
                marks = {}
            for topic, mark in marks.items():
                if topic in self._watchers and self._marks.get(topic) != mark:
                    self._marks[topic] = mark
                    for event in self._watchers[topic]:
                        event.set()
            await asyncio.sleep(TICK_SECONDS)

    def _read(self, topics: list[Topic]) -> dict[Topic, Hashable]:
        by_kind: dict[Kind, list[UUID]] = {"job": [], "run": [], "log": []}
        for kind, identifier in topics:
            by_kind[kind].append(identifier)
        found: dict[Topic, Hashable] = {}
        with self._database.read() as session:
            if by_kind["job"]:
                found |= {("job", key): mark for key, mark in Jobs(session).heads(by_kind["job"]).items()}
            if by_kind["run"]:
                found |= {("run", key): mark for key, mark in Runs(session).heads(by_kind["run"]).items()}
            if by_kind["log"]:
                found |= {("log", key): mark for key, mark in Logs(session).heads(by_kind["log"]).items()}
        return found


async def _wait(waiting: Awaitable[object], seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(waiting, max(seconds, 0.0))
