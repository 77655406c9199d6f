"""What one check found."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from store.settings import Settings

State = Literal["ok", "warning", "broken", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what a person can do about it."""

    state: State
    """`broken` keeps the platform from working; a `warning` is worth a look; `skipped` does not apply here."""
    found: str
    """What is the case."""
    cure: str = ""
    """What to do; empty where there is nothing to do."""


Check = Callable[[Settings], Finding]


def ok(found: str) -> Finding:
    """All is well."""
    return Finding("ok", found)


def warning(found: str, cure: str) -> Finding:
    """It works, and could be better."""
    return Finding("warning", found, cure)


def broken(found: str, cure: str) -> Finding:
    """It does not work."""
    return Finding("broken", found, cure)


def skipped(found: str) -> Finding:
    """It does not apply here."""
    return Finding("skipped", found)
