"""States of a run, the transitions between them, and the one function that decides.

`state` is what is; `desired` is what a person wants. Workers, the API and the reconciler all ask `decide`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class RunState(StrEnum):
    """What a run is doing."""

    BLOCKED = "blocked"
    QUEUED = "queued"
    LEASED = "leased"
    RUNNING = "running"
    STOPPING = "stopping"
    RETRY_WAIT = "retry_wait"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


class Desired(StrEnum):
    """What a person wants of a run."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


LIVE = frozenset({RunState.LEASED, RunState.RUNNING, RunState.STOPPING})
"""A worker holds the run."""
TERMINAL = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.QUARANTINED})
"""Never left again."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    """It checkpointed and stopped because it was asked to (cancel, pause, drain)."""
    USER = "user"
    """The configuration or the data are wrong: no retry helps."""
    INFRA = "infra"
    """A signal, a lost file, an unexpected exception."""
    OOM = "oom"
    NON_FINITE = "non_finite"
    COLLAPSED = "collapsed"
    """Its collapse watch ended it."""
    PAUSED = "paused"
    """Its collapse watch stopped it at a checkpoint, for a person to look at; it goes on when it is resumed."""
    BOUNDARY = "boundary"
    """It stopped at a checkpoint of the step at which its search decides; it goes on when the search says so."""
    LOST = "lost"
    """Its worker fell silent."""


_ENDS_OF_AN_ATTEMPT = frozenset({RunState.QUEUED, RunState.RETRY_WAIT, RunState.PAUSED}) | TERMINAL

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.BLOCKED: frozenset({RunState.QUEUED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.QUEUED: frozenset({RunState.LEASED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.LEASED: frozenset({RunState.RUNNING, RunState.STOPPING}) | _ENDS_OF_AN_ATTEMPT,
    RunState.RUNNING: frozenset({RunState.STOPPING}) | _ENDS_OF_AN_ATTEMPT,
    RunState.STOPPING: _ENDS_OF_AN_ATTEMPT,
    RunState.RETRY_WAIT: frozenset({RunState.QUEUED, RunState.PAUSED, RunState.CANCELLED}),
    RunState.PAUSED: frozenset({RunState.QUEUED, RunState.BLOCKED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
    RunState.QUARANTINED: frozenset(),
}
"""Where a run may go from each state."""

MAX_DELAY_SECONDS = 60.0
"""Longest back-off between two attempts."""
MAX_SAME_FAILURES = 3
"""Failures in a row with one message and no progress in between that quarantine a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What an ended attempt is judged by; the counts are those before it."""

    max_infra_failures: int = 5
    """Attempts that infrastructure may end; one more fails the run."""
    infra_failures: int = 0
    """Attempts ended as `infra` or `lost`."""
    same_failures: int = 0
    """Attempts in a row, just before this one, that ended as `infra` with the same message and without progress."""
    oom_failures: int = 0
    """Attempts ended as `oom`."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The state that follows, and why."""

    state: RunState
    reason: str = ""
    delay_seconds: float = 0.0
    """Back-off before the next attempt."""
    is_infra_failure: bool = False
    """The attempt counts against `max_infra_failures`."""


def decide(
    state: RunState,
    desired: Desired,
    outcome: Outcome | None = None,
    budgets: Budgets | None = None,
    *,
    is_blocked: bool = False,
    stop_reason: str = "",
) -> Decision:
    """The state that follows from what is, what a person wants and how the attempt ended; pure.

    A cancel wins over every outcome, success included: what was acknowledged as being cancelled never ends as
    succeeded. A pause wins over everything but success and the errors that a resumed attempt would only repeat.

    Args:
        outcome: how the attempt of a live run ended; None while it goes on or where there is none.
        budgets: needed with an outcome.
        is_blocked: dependencies are unfinished.
        stop_reason: the budget that the run went over; it ends with the attempt, unless that succeeded.
    """
    if outcome is None:
        return _decide_without_outcome(state, desired, is_blocked)
    assert state in LIVE, f"an attempt of a run that is {state} ended as {outcome}"
    if desired is Desired.CANCEL:
        return Decision(RunState.CANCELLED, "cancelled on request")
    if outcome is Outcome.SUCCEEDED:
        return Decision(RunState.SUCCEEDED)
    if outcome is Outcome.USER:
        return Decision(RunState.FAILED, "the configuration or the data are wrong")
    if outcome is Outcome.NON_FINITE:
        return Decision(RunState.FAILED, "a number was not finite")
    if outcome is Outcome.COLLAPSED:
        return Decision(RunState.FAILED, "its collapse watch ended it")
    if stop_reason:
        return Decision(RunState.FAILED, stop_reason)
    if outcome is Outcome.BOUNDARY:
        return Decision(RunState.PAUSED, "waits for the other trials of its search")
    if desired is Desired.PAUSE:
        return Decision(RunState.PAUSED, "paused on request")
    if outcome is Outcome.PAUSED:
        return Decision(RunState.PAUSED, "paused by its collapse watch")
    if outcome is Outcome.STOPPED:
        return Decision(RunState.QUEUED, "stopped at a checkpoint; goes on where a worker takes it")
    return _decide_retry(outcome, budgets or Budgets())


def _decide_without_outcome(state: RunState, desired: Desired, is_blocked: bool) -> Decision:
    if state in TERMINAL:
        return Decision(state)
    if desired is Desired.CANCEL:
        if state in LIVE:
            return Decision(RunState.STOPPING, "cancel requested")
        return Decision(RunState.CANCELLED, "cancelled on request")
    if desired is Desired.PAUSE:
        if state in LIVE:
            return Decision(RunState.STOPPING, "pause requested")
        return Decision(RunState.PAUSED, "paused on request")
    if state is RunState.PAUSED:
        return Decision(RunState.BLOCKED if is_blocked else RunState.QUEUED, "resumed")
    return Decision(state)


def _decide_retry(outcome: Outcome, budgets: Budgets) -> Decision:
    if outcome is Outcome.OOM:
        if budgets.oom_failures:
            return Decision(RunState.FAILED, "out of memory twice")
        return Decision(RunState.RETRY_WAIT, "out of memory; tried once more", delay_seconds=1.0)
    failures = budgets.infra_failures + 1
    if outcome is Outcome.INFRA and budgets.same_failures + 1 >= MAX_SAME_FAILURES:
        reason = f"failed {MAX_SAME_FAILURES} times in the same way without progress"
        return Decision(RunState.QUARANTINED, reason, is_infra_failure=True)
    if failures > budgets.max_infra_failures:
        return Decision(RunState.FAILED, f"infrastructure ended {failures} attempts", is_infra_failure=True)
    if outcome is Outcome.LOST:
        return Decision(RunState.QUEUED, "its worker fell silent", is_infra_failure=True)
    delay = min(MAX_DELAY_SECONDS, 2.0 ** (failures - 1))
    return Decision(RunState.RETRY_WAIT, f"failed; tried again in {delay:g} s", delay, is_infra_failure=True)


def job_status(states: Iterable[str]) -> str:
    """A job's status from its runs' states: queued, running, paused, or how it ended; failed wins over cancelled."""
    present = {RunState(state) for state in states}
    if present <= TERMINAL:
        if present & {RunState.FAILED, RunState.QUARANTINED}:
            return "failed"
        return "cancelled" if RunState.CANCELLED in present else "succeeded"
    if present & LIVE:
        return "running"
    if RunState.PAUSED in present and present <= TERMINAL | {RunState.PAUSED, RunState.BLOCKED}:
        return "paused"
    has_started = present & (TERMINAL - {RunState.CANCELLED} | {RunState.RETRY_WAIT})
    return "running" if has_started else "queued"
