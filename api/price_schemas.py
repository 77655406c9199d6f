"""What the wire shows of a price: what the jobs of a document cost."""

from typing import Literal

from api.schemas import Wire


class MemoryPart(Wire):
    """What some of a process's memory is for."""

    name: str
    bytes: float


class JobPriceRead(Wire):
    """What all runs of one job cost."""

    name: str
    kind: str
    runs: int
    processes: int
    """Processes of one run, each on a device of its own where it has GPUs."""
    memory_bytes: float | None
    """Of one process at its fullest; null where nothing is computed here or the price is not known."""
    memory: list[MemoryPart]
    """What it is for."""
    fits: bool | None
    """Whether a process fits into the device's memory."""
    operations: float
    """Floating-point operations."""
    tokens: float
    """Tokens generated plus tokens trained on."""
    device_hours_low: float
    """At the best of the price's utilisations."""
    device_hours_high: float
    """At the worst."""
    judge_price: float
    """What judges ask for it, in the currency of their `prices`."""
    problem: str
    """Why there is no price; empty where there is one."""
    same_as: str
    """The job before it that does the same and is computed once; empty where there is none."""


class PriceRead(Wire):
    """What the runs of a document cost."""

    object: Literal["price"] = "price"
    name: str
    num_jobs: int
    num_runs: int
    num_assumed: int
    """Places that the document marks as assumed."""
    num_published: int
    """Printed numbers that it carries."""
    device: str
    """What the hours are of."""
    utilisation_low: float
    """Share of the device's peak, at worst."""
    utilisation_high: float
    """At best."""
    operations: float
    """Of everything, equal jobs once."""
    device_hours_low: float
    device_hours_high: float
    judge_price: float
    jobs: list[JobPriceRead]
