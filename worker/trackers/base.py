"""What a tracker is told, and what it does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Points = Sequence[tuple[int, Mapping[str, float]]]
"""Values by metric, of each step in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a tracker shows about a run."""

    id: str
    """`run_...`"""
    name: str
    """Job and seed, for a person."""
    group: str
    """Its experiment, else its job."""
    created_at_ms: int
    """Unix time of the submission."""
    config: Mapping[str, Any]
    """The stage's configuration, flat: `optimizer.learning_rate`."""
    tags: Mapping[str, str]
    """kind, method, job, seed, ... and the submitter's metadata."""


class Tracker(Protocol):
    """Copies runs to one place. Every method may raise anything: it is tried again later, with the same points."""

    def write(self, card: Card, points: Points, external_id: str, first_step: int) -> str:
        """Adds points to a run, which is made where the tracker does not have it; gives the tracker's id of it.

        Args:
            first_step: the tracker may have points from here on, of a try that ended halfway.
        """
        ...

    def end(self, card: Card, external_id: str, *, succeeded: bool) -> None:
        """Nothing more comes."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one level, its keys joined by points; lists are texts."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found.update(flat(value, f"{key}."))
        else:
            found[key] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
