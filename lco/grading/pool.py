"""A pool of worker processes for computer algebra, usable from any thread. No torch.

A worker has an empty environment, no network, a limit on memory and nothing inherited but its pipes. It is started when
it is first needed, replaced when it fails, and ends with this process, however this process ends.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("worker.py")
WALL_SECONDS = 1.2
CPU_SECONDS = 0.9
"""On a machine that gives a worker less time than this within WALL_SECONDS, it may go on for a fifth longer."""
MEMORY_BYTES = 1 << 30
START_SECONDS = 120.0
RECYCLE_AFTER = 20_000


class AlgebraFailure(RuntimeError):
    """Our side failed to compare: the worker cannot be started, or ended for no fault of the answer."""


class OverBudget(RuntimeError):
    """The answer took more time or memory than one answer may."""


@dataclass(frozen=True, slots=True)
class AlgebraReply:
    """What the computer algebra found."""

    is_equal: bool
    answer_value: str | None = None
    """The answer as a decimal, where answer and reference are real constants."""
    reference_value: str | None = None
    reason: str | None = None


class _Worker:
    """One worker process. Used by one thread at a time."""

    def __init__(self) -> None:
        # a plain list of arguments, no shell; `-I` ignores the environment, which is empty anyway
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            close_fds=True,
            start_new_session=True,
            bufsize=0,
        )
        self._pending = b""
        try:
            self._write({"path": sys.path, "memory_bytes": MEMORY_BYTES})
            ready = self._read(START_SECONDS)
        except AlgebraFailure:
            self.close()
            raise
        self.isolation = str(ready["isolation"])
        self.version = str(ready["version"])
        self.num_served = 0

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, answer: str, reference: str, wall_seconds: float) -> dict[str, Any]:
        """The worker's reply.

        Raises:
            AlgebraFailure: it gives none.
        """
        self.num_served += 1
        cpu_seconds = CPU_SECONDS * wall_seconds / WALL_SECONDS
        self._write(
            {"answer": answer, "reference": reference, "wall_seconds": wall_seconds, "cpu_seconds": cpu_seconds}
        )
        return self._read(1.2 * wall_seconds + 5)

    def close(self) -> None:
        """Ends the process and its child."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(0.5)  # it ends by itself when its input does, and takes its child along
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        content = json.dumps(message).encode() + b"\n"
        try:
            while content:
                content = content[self._process.stdin.write(content) or 0 :]
        except (OSError, ValueError) as error:  # the pipe is broken, or closed by another thread
            raise AlgebraFailure(f"a grading process is gone ({error})") from error

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + seconds
        poller = select.poll()  # unlike select(), takes descriptors beyond 1,024
        poller.register(descriptor, select.POLLIN)
        while b"\n" not in self._pending:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise AlgebraFailure(f"a grading process is silent for {seconds:.0f} s")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise AlgebraFailure("a grading process ended; is math-verify installed?")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


class AlgebraPool:
    """Compares formulas in worker processes; any number of threads may ask at once."""

    def __init__(self, num_workers: int | None = None) -> None:
        """Starts nothing yet.

        Args:
            num_workers: processes; as many as there are processors, at most 4, where nothing is said.
        """
        if num_workers is None:
            num_workers = max(1, min(4, len(os.sched_getaffinity(0))))
        if num_workers < 1:
            raise ValueError(f"num_workers: {num_workers} is less than 1")
        self.num_workers = num_workers
        self._slots: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(num_workers):
            self._slots.put(None)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._is_closed = False
        self._owner = os.getpid()

    def compare(self, answer: str, reference: str, wall_seconds: float = WALL_SECONDS) -> AlgebraReply:
        """Whether a formula equals the reference.

        Raises:
            OverBudget: the answer takes too much time or memory.
            AlgebraFailure: our side fails, twice.
        """
        if os.getpid() != self._owner:
            raise AlgebraFailure("the pool belongs to the process that made it, not to a fork of it")
        if self._is_closed:
            raise AlgebraFailure("the pool is closed")
        worker = self._slots.get()
        try:
            for is_last in (False, True):
                try:
                    if worker is None:
                        worker = self._start()
                    reply = worker.ask(answer, reference, wall_seconds)
                    if "failed" in reply:
                        raise AlgebraFailure(str(reply["failed"]))
                    break
                except AlgebraFailure:
                    if worker is not None:
                        self._end(worker)
                        worker = None
                    if is_last or self._is_closed:
                        raise
        finally:
            if worker is not None and (worker.num_served >= RECYCLE_AFTER or self._is_closed):
                self._end(worker)
                worker = None
            self._slots.put(worker)
        if reply.get("timeout"):
            raise OverBudget(f"took more than {wall_seconds:.1f} s")
        if reply.get("died"):
            raise OverBudget("took more memory than one answer may")
        return AlgebraReply(
            bool(reply["equal"]), reply.get("answer_value"), reply.get("reference_value"), reply.get("reason")
        )

    def version(self) -> str:
        """What computes, with versions, and how its processes are kept off the network.

        Raises:
            AlgebraFailure: no worker can be started.
        """
        worker = self._slots.get()
        try:
            if worker is None:
                worker = self._start()
            return f"{worker.version}, network: {worker.isolation}"
        finally:
            self._slots.put(worker)

    def process_ids(self) -> list[int]:
        """The worker processes that run now."""
        with self._lock:
            return [worker.process_id for worker in self._workers]

    def close(self) -> None:
        """Ends the processes. What still waits for one fails."""
        with self._lock:
            self._is_closed = True
            workers = list(self._workers)
        for worker in workers:
            self._end(worker)

    def _start(self) -> _Worker:
        if self._is_closed:
            raise AlgebraFailure("the pool is closed")
        worker = _Worker()
        with self._lock:
            self._workers.add(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.close()
