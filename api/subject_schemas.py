"""What the wire shows of runs and checkpoints side by side."""

from typing import Any, Literal

from api.result_schemas import Unit
from api.schemas import Wire


class SubjectRead(Wire):
    """One of the things that are compared."""

    id: str
    """As it was named: `run_...` or `ckpt_...`."""
    label: str
    """Job and train seed, for a person."""
    run_id: str
    """It, or the run that made it."""
    job_id: str
    kind: str
    method: str
    seed: int
    """Train seed."""
    state: str
    """Of the run."""


class DifferenceOverSubjects(Wire):
    """A place of the configurations whose values are not all equal."""

    pointer: str
    """`/config/...`, `/kind` or `/seed`."""
    values: list[Any]
    """Of each subject; null where it has nothing there."""


class MetricOverSubjects(Wire):
    """The newest value of a metric."""

    key: str
    values: list[float | None]
    """Of each subject."""


class ResultOverSubjects(Wire):
    """One measurement."""

    benchmark: str
    metric: str
    decoding: str
    configuration: str
    """Hash of what was measured."""
    unit: Unit
    values: list[float | None]
    """Of each subject: the mean over its eval seeds; null where it was not made."""
    num_eval_seeds: list[int]


class SideBySide(Wire):
    """Runs and checkpoints side by side; every list of values is in the order of `subjects`."""

    object: Literal["side_by_side"] = "side_by_side"
    subjects: list[SubjectRead]
    configuration: list[DifferenceOverSubjects]
    metrics: list[MetricOverSubjects]
    results: list[ResultOverSubjects]
