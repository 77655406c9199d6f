"""Journals: append-only JSON Lines in which nothing that was recorded is ever done again. No torch.

A line is `{"key": "<sha256 of what was asked>", "value": {...}}`. A process killed at any byte leaves whole lines and
at most one torn one, which the next writer cuts off.
"""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self


def content_key(**parts: Any) -> str:
    """SHA-256, in hexadecimal, of the parts as JSON with sorted keys: equal contents have equal keys."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def sound(value: Any) -> Any:
    """The value as JSON that every reader takes: lone surrogates become U+FFFD, numbers that are not finite null."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {sound(str(key)): sound(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sound(item) for item in value]
    return value


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name; what they hold is not copied."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


class Journal:
    """Values by content key, in a file that only grows; safe to use from several threads."""

    def __init__(self, path: Path, earlier: Sequence[Path] = (), *, sync_seconds: float = 0.0) -> None:
        """Opens the journal for writing, and those of earlier attempts for reading.

        Args:
            path: created where it is missing; a torn last line is cut off.
            earlier: journals of earlier attempts, newest first; missing ones are passed over.
            sync_seconds: longest time that a line may wait for the disk. A line is handed to the kernel at once, so
                that a killed process loses none; a power failure can take what was written since. 0 waits for the
                disk every time: the choice for what was paid for.
        """
        self._lock = threading.Lock()
        self._sync_seconds = sync_seconds
        self._synced_at = time.monotonic()
        self._places: dict[str, tuple[int, int, int]] = {}
        self._descriptors: list[int] = []
        for place in [*reversed(earlier), path]:
            if place != path and not place.exists():
                continue
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if place == path else os.O_RDONLY
            descriptor = os.open(place, flags, 0o666)
            self._descriptors.append(descriptor)
            end = self._index(descriptor)
        os.ftruncate(descriptor, end)  # the last one opened is `path`
        self._writer = descriptor
        self._end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any] | None:
        """The newest value recorded under a key, by this attempt or an earlier one; None where there is none."""
        with self._lock:
            place = self._places.get(key)
        if place is None:
            return None
        descriptor, start, length = place
        value: dict[str, Any] = json.loads(os.pread(descriptor, length, start))["value"]
        return value

    def put(self, key: str, value: Mapping[str, Any]) -> None:
        """Records one value; it is in the file when this returns."""
        self.put_all([(key, value)])

    def put_all(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Records several values with one write."""
        lines = [(key, json.dumps({"key": key, "value": sound(value)}).encode() + b"\n") for key, value in entries]
        with self._lock:
            content = b"".join(line for _, line in lines)
            while content:
                content = content[os.write(self._writer, content) :]
            if time.monotonic() - self._synced_at >= self._sync_seconds:
                self._sync()
            for key, line in lines:
                self._places[key] = (self._writer, self._end, len(line))
                self._end += len(line)

    def close(self) -> None:
        """Makes everything durable and closes the files."""
        with self._lock:
            if self._descriptors:
                self._sync()
            for descriptor in self._descriptors:
                os.close(descriptor)
            self._descriptors = []

    def _sync(self) -> None:
        os.fsync(self._writer)
        self._synced_at = time.monotonic()

    def _index(self, descriptor: int) -> int:
        """Notes where every whole record of a file stands; returns where its whole lines end."""
        position = 0
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                if (key := _key_of(line)) is not None:
                    self._places[key] = (descriptor, position, len(line))
                position += len(line)
        return position


def _key_of(line: bytes) -> str | None:
    """The key of a whole record; None for a line that is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("value"), dict):
        return None
    key = record.get("key")
    return key if isinstance(key, str) else None
