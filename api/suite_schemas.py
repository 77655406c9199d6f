"""What the wire shows of suites and verdicts."""

from datetime import datetime
from typing import Any, Literal

from api.result_schemas import Unit
from api.schemas import Wire

VerdictState = Literal["pending", "running", "decided", "error"]
Outcome = Literal["pass", "regressed", "improved", "inconclusive"]


class GateRead(Wire):
    """What one metric must keep to."""

    benchmark: str
    metric: str
    decoding: str
    unit: Unit
    """Of every value, drop and difference of the gate."""
    min_value: float | None
    """The floor; null for none."""
    max_drop: float | None
    """The largest allowed drop against the baseline; null for a floor alone."""


class VerdictCounts(Wire):
    """How many verdicts of a suite, over all versions, came to what."""

    passed: int
    regressed: int
    improved: int
    inconclusive: int
    open: int
    """Not decided yet."""
    error: int


class SuiteRead(Wire):
    """Benchmarks, a baseline and gates, as they are now."""

    object: Literal["suite"] = "suite"
    id: str
    name: str
    description: str
    version: int
    """Grows with every change of what is measured or asked; verdicts name theirs."""
    benchmarks: list[dict[str, Any]]
    decodings: list[str]
    eval_seeds: list[int]
    samples_per_example: int
    baseline: str
    """`alias:NAME` or `ckpt_...`."""
    gates: list[GateRead]
    level: float
    """The chance that any gate of a checkpoint equal to the baseline alarms, and that of a wrong pass at each gate."""
    promote: dict[str, Any] | None
    """The alias that a checkpoint gets, and for which verdict."""
    triggers: dict[str, Any]
    """What makes the platform judge a checkpoint by itself."""
    spec: dict[str, Any]
    """The whole document, every default written out: what a patch changes."""
    counts: VerdictCounts
    archived_at: datetime | None
    """Since when it is out of use; null while it is in use."""
    created_at: datetime
    updated_at: datetime


class GateVerdict(GateRead):
    """A gate, and what came of it."""

    outcome: Outcome
    reason: str
    """Why, for a person."""
    num_examples: int
    """Behind the value; of a drop, those that both have a value of."""
    num_left_out: int
    """Examples without a value on either side."""
    value: float | None
    """The checkpoint's, over examples."""
    stderr: float | None
    """Over examples, each one being one cluster."""
    baseline_value: float | None
    baseline_stderr: float | None
    difference: float | None
    """Checkpoint less baseline over the examples that both have; a drop is negative."""
    difference_stderr: float | None
    low: float | None
    """One-sided lower bound of the difference at the level."""
    high: float | None
    """One-sided upper bound of the difference at the level."""
    num_wins: int
    """Examples where the checkpoint has the greater value."""
    num_losses: int
    num_ties: int
    holds_p: float | None
    """One-sided p-value that the gate holds, the greatest of its claims; at the level it is shown to."""
    floor_p: float | None
    """One-sided p-value that the value is below the floor."""
    drop_p: float | None
    """One-sided p-value, paired by example, that the drop is larger than allowed."""
    alarm_p: float | None
    """The least of both after the corrections for a shared baseline and (Holm) for the suite's tests; at the level it
    alarms."""
    better_p: float | None
    """That the checkpoint is better than the baseline, after both corrections."""
    detectable_drop: float | None
    """The least true drop that this gate flags with a chance of 0.8, by the spread that was seen."""
    passing_margin: float | None
    """The least `max_drop` at which a checkpoint equal to the baseline passes with a chance of 0.8. A gate with a
    smaller one is too small a suite for what it asks."""


class VerdictRead(Wire):
    """What a version of a suite says of a checkpoint."""

    object: Literal["verdict"] = "verdict"
    id: str
    suite_id: str
    suite_name: str
    version: int
    """Of the suite."""
    checkpoint_id: str
    checkpoint_name: str
    """The job that made it and its step, for a person."""
    baseline_id: str | None
    """What the baseline meant when the verdict was asked for; null where it meant nothing."""
    baseline_name: str
    cause: str
    """What asked for it."""
    state: VerdictState
    """`pending`, `running` (an evaluation has begun), `decided`, or `error`."""
    outcome: Outcome | None
    """null before it is decided."""
    reason: str
    """What decided it, or why it could not be."""
    level: float
    gates: list[GateVerdict]
    """Empty before it is decided."""
    job_id: str | None
    """The evaluation of the checkpoint."""
    run_id: str | None
    """Its run, which has the completions."""
    baseline_job_id: str | None
    baseline_run_id: str | None
    promoted_alias: str | None
    """The alias that the checkpoint got for it."""
    promotion_note: str | None
    """Why it did not get it although its outcome is good."""
    created_at: datetime
    decided_at: datetime | None


class HistoryPoint(Wire):
    """One checkpoint's value of a metric, beside its baseline's."""

    verdict_id: str
    version: int
    checkpoint_id: str
    checkpoint_name: str
    checkpoint_created_at: datetime
    outcome: Outcome
    """Of this gate."""
    value: float | None
    stderr: float | None
    baseline_id: str
    baseline_value: float | None
    baseline_low: float | None
    """95 % interval of the baseline's value over examples."""
    baseline_high: float | None
    min_value: float | None
    max_drop: float | None


class HistorySeries(Wire):
    """The points of one metric, in the order in which the checkpoints were written."""

    benchmark: str
    metric: str
    decoding: str
    unit: Unit
    points: list[HistoryPoint]


class HistoryRead(Wire):
    """How the gated metrics of a suite went from checkpoint to checkpoint."""

    object: Literal["suite.history"] = "suite.history"
    suite_id: str
    series: list[HistorySeries]
