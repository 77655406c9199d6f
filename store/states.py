"""States of a run, the transitions between them, and the one function that decides.

`state` is what is; `desired` is what a person wants. Workers, the API and the reconciler all ask `decide`.
"""

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
    LOST = "lost"
    """Its worker fell silent."""
