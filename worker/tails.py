"""Readers of what a run appends to its files.

A position moves only when told, after the commit: the files are the spool of a database outage.
"""

import codecs
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lco.manifest import Manifest, read_manifest
from lco.rollout_log import ROLLOUTS
from store.rows import RolloutRow
from store.text import clean_text

PROGRESS = "progress.jsonl"
_READ_BYTES = 1 << 18
_LOG_BYTES = 1 << 16
_MAX_STEP = (1 << 63) - 1
_MAX_TOTAL = (1 << 31) - 1
_MAX_MESSAGE = 2000
_MAX_KEY = 128
_CHECKPOINT = re.compile(r"checkpoints/step-[0-9]{1,19}")
_ROLLOUT = TypeAdapter(RolloutRow)
_RESUMED = re.compile(r"resumed from step (?P<step>[0-9]{1,9})")


@dataclass(slots=True)
class Batch:
    """What the files held beyond the last position, as rows to be."""

    progress: tuple[int, int, str] | None = None
    """Newest step, total and message."""
    resumed_from_step: int | None = None
    """From the message `resumed from step N`."""
    metrics: list[tuple[int, dict[str, float | None]]] = field(default_factory=list)
    """Step, and values by key; null where a value was not finite."""
    spent: float | None = None
    """US dollars so far."""
    checkpoints: list[Manifest] = field(default_factory=list)
    """Verified ones; what is damaged or already rotated away is left out."""
    messages: list[tuple[str, str]] = field(default_factory=list)
    """Level and text."""
    rollouts: list[RolloutRow] = field(default_factory=list)
    log: str = ""
    progress_bytes: int = 0
    """How far the position in `progress.jsonl` moves once the batch is stored."""
    log_bytes: int = 0
    """How far the position in the log moves."""
    rollout_bytes: int = 0
    """How far the position in `rollouts.jsonl` moves."""

    @property
    def is_empty(self) -> bool:
        """Nothing was appended."""
        return not self.progress_bytes and not self.log_bytes and not self.rollout_bytes

    @property
    def is_full(self) -> bool:
        """There may be more to read already."""
        longest = max(self.progress_bytes, self.rollout_bytes)
        return longest > _READ_BYTES // 2 or self.log_bytes > _LOG_BYTES // 2


class Tails:
    """The positions in `progress.jsonl`, `rollouts.jsonl` and the log of one attempt."""

    def __init__(self, directory: Path, log_name: str, max_log_bytes: int = 1 << 23) -> None:
        """Starts at the beginning of the files.

        Args:
            max_log_bytes: what a run prints beyond this stays in its file alone.
        """
        self._directory = directory
        self._log_name = log_name
        self._max_log_bytes = max_log_bytes
        self._progress_position = 0
        self._rollout_position = 0
        self._log_position = 0
        self.num_chunks = 0
        """Log chunks stored so far: the number of the next."""
        self.resumed_from_step: int | None = None
        """Step of the checkpoint that the attempt says it went on from."""

    def read(self, *, is_final: bool = False) -> Batch:
        """The next batch: complete lines of progress, and text.

        Args:
            is_final: the run ended, so that a last line without its end is malformed, and not unfinished.
        """
        batch = Batch()
        content = _lines(self._directory / PROGRESS, self._progress_position, is_final)
        batch.progress_bytes = len(content)
        malformed = 0
        for line in content.splitlines():
            malformed += not self._take(batch, line)
        if malformed:
            batch.messages.append(("warning", f"{malformed} malformed lines in {PROGRESS} were left out"))
        self._read_rollouts(batch, is_final)
        self._read_log(batch, is_final)
        return batch

    def _read_rollouts(self, batch: Batch, is_final: bool) -> None:
        content = _lines(self._directory / ROLLOUTS, self._rollout_position, is_final)
        batch.rollout_bytes = len(content)
        malformed = 0
        for line in content.splitlines():
            try:
                batch.rollouts.append(_ROLLOUT.validate_json(line))
            except ValueError:
                malformed += 1
        if malformed:
            batch.messages.append(("warning", f"{malformed} malformed lines in {ROLLOUTS} were left out"))

    def advance(self, batch: Batch) -> None:
        """Moves past a batch that is stored."""
        if batch.resumed_from_step is not None:
            self.resumed_from_step = batch.resumed_from_step
        self._progress_position += batch.progress_bytes
        self._rollout_position += batch.rollout_bytes
        self._log_position += batch.log_bytes
        self.num_chunks += bool(batch.log)

    def _read_log(self, batch: Batch, is_final: bool) -> None:
        room = self._max_log_bytes - self._log_position
        if room <= 0:
            return
        content = _from(self._directory / self._log_name, self._log_position, min(_LOG_BYTES, room))
        text, batch.log_bytes = codecs.utf_8_decode(content, "replace", is_final or len(content) == room)
        batch.log = clean_text(text)
        if batch.log_bytes == room:
            batch.log += f"\n[{self._log_name} goes on; what follows is in the file alone]\n"

    def _take(self, batch: Batch, line: bytes) -> bool:
        """Adds one line to the batch; False when it says nothing that can be understood."""
        try:
            record = json.loads(line, parse_constant=lambda name: None)
            match record["type"]:
                case "progress":
                    step, total = _whole(record["step"], _MAX_TOTAL), _whole(record["total"], _MAX_TOTAL)
                    batch.progress = (step, total, clean_text(str(record.get("message", "")), _MAX_MESSAGE))
                case "metrics":
                    step = _whole(record["step"], _MAX_STEP)
                    values = record["values"].items()
                    batch.metrics.append((step, {clean_text(key, _MAX_KEY): _finite(value) for key, value in values}))
                case "spending":
                    batch.spent = max(_finite(record["usd"]) or 0.0, batch.spent or 0.0)
                case "checkpoint":
                    self._take_checkpoint(batch, str(record["path"]))
                case "event":
                    level = "warning" if record.get("level") == "warning" else "info"
                    message = clean_text(str(record["message"]), _MAX_MESSAGE)
                    batch.messages.append((level, message))
                    if resumed := _RESUMED.fullmatch(message):
                        batch.resumed_from_step = int(resumed["step"])
                case _:
                    return False
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return False
        return True

    def _take_checkpoint(self, batch: Batch, path: str) -> None:
        if not _CHECKPOINT.fullmatch(path):
            raise ValueError(f"{path[:80]!r} is no checkpoint of a run")
        try:
            batch.checkpoints.append(read_manifest(self._directory / path))
        except ValueError:  # rotated away since, or damaged: a resume finds that out by itself
            return


def _lines(path: Path, position: int, is_final: bool) -> bytes:
    """The complete lines from a position on; of a file that is final, a line without its end too."""
    content = _from(path, position, _READ_BYTES)
    end = content.rfind(b"\n") + 1
    is_endless = len(content) == _READ_BYTES and not end
    is_whole = is_endless or (is_final and len(content) < _READ_BYTES)
    return content if is_whole else content[:end]


def _from(path: Path, position: int, limit: int) -> bytes:
    """Up to `limit` bytes from a position; none while there is no file."""
    try:
        with path.open("rb") as stream:
            stream.seek(position)
            return stream.read(limit)
    except FileNotFoundError:
        return b""


def _whole(value: Any, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        raise ValueError(f"{value!r} is no count")
    return value


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    return number if math.isfinite(number) else None
