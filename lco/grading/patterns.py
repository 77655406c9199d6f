"""Regular expressions matched in a process that is ended when a text takes too long. No torch."""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

WORKER = Path(__file__).with_name("pattern_worker.py")
WALL_SECONDS = 1.0
"""Of one text."""
MAX_TEXT_CHARACTERS = 1 << 17
_START_SECONDS = 60.0


class PatternFailure(RuntimeError):
    """Our side failed: the process cannot be started."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one text."""

    text: str | None
    """What the last match found; None where nothing matches."""
    is_timed_out: bool = False
    """The text took too long, or too much memory: it counts as one that does not match."""


class PatternMatcher:
    """Matches one pattern against texts, one after another; the process is started by the first. Thread-safe."""

    def __init__(self, pattern: str, match: str, group: int | None, wall_seconds: float = WALL_SECONDS) -> None:
        """Starts nothing yet.

        Args:
            match: `search` or `full`.
            group: of which the text is told; None where only a match is asked for.
        """
        self._settings = {"pattern": pattern, "match": match, "group": group}
        self._wall_seconds = wall_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def find(self, texts: Sequence[str]) -> Iterator[Found]:
        """What the pattern finds in each text.

        Raises:
            PatternFailure: no process can be started.
        """
        for text in texts:
            with self._lock:
                yield self._find(text[:MAX_TEXT_CHARACTERS])

    def close(self) -> None:
        """Ends the process."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _find(self, text: str) -> Found:
        if self._process is None:
            self._start()
        line = self._ask(text, self._wall_seconds)
        if line is None:
            self.close()
            return Found(None, is_timed_out=True)
        return Found(json.loads(line))

    def _start(self) -> None:
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                bufsize=0,
            )
        except OSError as error:
            raise PatternFailure(f"the process that matches patterns cannot be started: {error}") from error
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        if self._ask("", _START_SECONDS) is None:
            self.close()
            raise PatternFailure("the process that matches patterns ends at once")

    def _ask(self, text: str, seconds: float) -> bytes | None:
        """The answer's line; None where none came in time."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        content = memoryview(json.dumps(text).encode() + b"\n")
        deadline = time.monotonic() + seconds
        try:
            while content:
                content = content[process.stdin.write(content) or 0 :]
        except OSError:
            return None
        poller = select.poll()
        poller.register(process.stdout, select.POLLIN)
        while b"\n" not in self._pending:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return None
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line
