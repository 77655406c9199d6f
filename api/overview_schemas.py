"""What `GET /v1/overview` shows: what goes on, on one page."""

from datetime import datetime
from typing import Literal

from api.schemas import RunRead, Wire


class LiveRun(RunRead):
    """A run that a worker holds."""

    experiment: str | None
    """Name of its experiment."""
    host: str
    """Machine of the worker that holds it."""
    gpu_indices: list[int]
    """GPUs of that machine that it has."""
    eta_seconds: float | None
    """Time that the remaining steps take at the pace of the current attempt; null before its first step."""


class EndedRun(RunRead):
    """A run that has ended."""

    experiment: str | None
    """Name of its experiment."""


class Slots(Wire):
    """What alive workers offer, and how much of it is in use."""

    total: int
    """Of alive workers, whatever project's runs they take."""
    used: int
    """By the runs of the caller's project."""


class QueueRead(Wire):
    """What does not run yet."""

    num_queued: int
    """Runs that wait for a slot."""
    num_blocked: int
    """Runs that wait for other runs."""
    num_held: int
    """Runs that are paused or wait before a retry."""
    oldest_seconds: float | None
    """How long the run that waits longest has been claimable; null where none waits."""


class OverviewRead(Wire):
    """What runs, what failed, what finished, what waits, and where there is room."""

    object: Literal["overview"] = "overview"
    states: dict[str, int]
    """Number of runs by state, over all time."""
    running: list[LiveRun]
    """Runs that workers hold, newest first; the first hundred of each state."""
    queue: QueueRead
    slots: Slots
    gpus: Slots
    num_workers: int
    """Alive workers."""
    since: datetime
    """Begin of the last day, to which what follows refers."""
    failed: list[EndedRun]
    """Runs that failed or were quarantined in the last day, newest first, twenty at most."""
    num_failed: int
    finished: list[EndedRun]
    """Runs that succeeded in the last day, newest first, twenty at most."""
    num_finished: int
