"""A reward that somebody else computes: a process beside the run asks judges, servers or a function. No torch.

The process is `python -m evaluation.reward_worker`, spoken to by JSON lines through its standard input and output. It
ends when its input does, however this process ended. What it was told and paid for stands in `rewards.jsonl` of the run
directory: no completion is rewarded twice, by a resumed run neither.
"""

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco.reward_config import HttpReward, JudgeReward, PythonReward, RemoteReward
from lco.rewards import Graded

MODULE = "evaluation.reward_worker"
JOURNAL = "rewards.jsonl"
_START_SECONDS = 120.0


class RewardFailure(RuntimeError):
    """Our side could not reward: what computes the reward is down or broken. The run may go on later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardItem:
    """A completion to be rewarded."""

    prompt_id: str
    prompt: str
    completion: str
    reference: str


class RewardProcess:
    """One remote reward of a run. Used by one thread."""

    def __init__(
        self, config: JudgeReward | HttpReward | PythonReward, run_dir: Path, earlier: Sequence[Path] = ()
    ) -> None:
        """Starts the process.

        Args:
            run_dir: where replies are recorded.
            earlier: run directories of earlier attempts, newest first.

        Raises:
            ValueError: the configuration cannot work: no key, a function that nobody declared.
            RewardFailure: the process does not start.
        """
        self.config: RemoteReward = config
        self.spent = 0.0
        """US dollars so far, earlier attempts included."""
        self._start_line = {
            "reward": config.model_dump(mode="json"),
            "journal": str(run_dir / JOURNAL),
            "earlier": [str(directory / JOURNAL) for directory in earlier],
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self._start()

    def close(self) -> None:
        """Lets the process end; ends it where it does not."""
        if (process := self._process) is None:
            return
        self._process = None
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def rewards(self, items: Sequence[RewardItem]) -> list[Graded]:
        """The reward of each completion; None, with a reason, where there is none.

        Raises:
            ValueError: no later completion could be rewarded either: a wrong key or address, no money left.
            RewardFailure: what computes the reward is down.
        """
        found: list[Graded] = []
        size = self.config.batch_size if isinstance(self.config, PythonReward) else max(1, len(items))
        for start in range(0, len(items), size):
            found += self._batch(items[start : start + size])
        return found

    def checked(self, items: Sequence[RewardItem]) -> list[Graded]:
        """`rewards`, of which not too many may be missing.

        Raises:
            RewardFailure: more than `max_error_rate` of them are.
            ValueError: see `rewards`.
        """
        found = self.rewards(items)
        missing = [graded.reason for graded in found if graded.reward is None]
        if len(missing) > self.config.max_error_rate * len(found):
            raise RewardFailure(
                f"reward: {len(missing)} of {len(found)} completions got none, more than max_error_rate "
                f"{self.config.max_error_rate:g} allows; the last: {missing[-1]}"
            )
        return found

    def _batch(self, items: Sequence[RewardItem]) -> list[Graded]:
        if self._process is None:
            self._start()
        texts = [
            {"id": i.prompt_id, "prompt": i.prompt, "completion": i.completion, "reference": i.reference} for i in items
        ]
        reply = self._ask({"items": texts}, self._seconds)
        if reply is None:
            self.close()
            reason = f"reward: {self._name} gave no answer within {self._seconds:.0f} s, or its process died"
            return [Graded(None, None, reason=reason) for _ in items]
        _raise_fatal(reply)
        return [_graded(row) for row in reply["rewards"]]

    @property
    def _name(self) -> str:
        config = self.config
        return f"the function {config.function}" if isinstance(config, PythonReward) else str(getattr(config, "name"))  # noqa: B009

    @property
    def _seconds(self) -> float:
        """How long a batch may take; judges and servers have limits of their own for each call."""
        return self.config.timeout_seconds if isinstance(self.config, PythonReward) else math.inf

    def _start(self) -> None:
        self._pending = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            reply = self._ask(self._start_line, _START_SECONDS)
            if reply is None:
                raise RewardFailure(f"reward: the process of {self._name} does not start; its log says why")
            _raise_fatal(reply)
        except BaseException:
            self.close()
            raise

    def _ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        """The answer; None where none came in time."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        content = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while content:
                content = content[process.stdin.write(content) or 0 :]
        except OSError:
            return None
        deadline = time.monotonic() + seconds
        poller = select.poll()
        poller.register(process.stdout, select.POLLIN)
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if not poller.poll(None if math.isinf(left) else max(0.0, left) * 1000):
                process.kill()
                return None
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        self.spent = max(self.spent, reply.get("spent", 0.0))
        return reply


def _raise_fatal(reply: dict[str, Any]) -> None:
    if "refused" in reply:
        raise ValueError(f"reward: {reply['refused']}")
    if "failed" in reply:
        raise RewardFailure(f"reward: {reply['failed']}")


def _graded(row: dict[str, Any]) -> Graded:
    """A row of an answer, in which the worker has looked at every type."""
    parts = tuple((str(name), value) for name, value in (row.get("parts") or {}).items())
    return Graded(row["reward"], row.get("is_correct"), parts=parts, reason=row.get("reason"))
