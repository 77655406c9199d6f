"""What the wire shows of a search."""

from typing import Any, Literal

from api.schemas import Wire


class TrialRead(Wire):
    """A job that competes, with one choice of the searched values."""

    trial: str
    """The value of the axis `trial`: `t07`."""
    job_id: str
    job: str
    """Its name."""
    arm: str
    """Whom it competes with, as `equal_budget_over` has it; empty where all compete."""
    parameters: dict[str, Any]
    """Searched name -> value."""
    state: str
    """`running`, `stopped` by the search, or `finished`."""
    rung: int
    """The rung that it is in, or was stopped at, from 1."""
    num_rungs: int
    steps: list[int]
    """Optimizer steps at the end of each rung."""
    values: list[float | None]
    """The metric's mean over seeds at the end of each rung that it came through; null where a seed has none."""
    value: float | None
    """The newest of them, or of a running trial the mean over its seeds now."""
    is_best: bool
    """Whether it is the best of its arm among those that have come as far."""
    reason: str
    """Why it was stopped."""


class SearchRead(Wire):
    """A search with its trials, in their order."""

    object: Literal["search"] = "search"
    experiment_id: str
    method: str
    """`random` or `grid`."""
    metric: str
    goal: str
    """`max` or `min`."""
    seed: int
    factor: int | None
    """One in so many goes on from a rung to the next; null without halving."""
    equal_budget_over: str | None
    space: dict[str, Any]
    """Name -> what it may be."""
    num_running: int
    num_stopped: int
    num_finished: int
    trials: list[TrialRead]
