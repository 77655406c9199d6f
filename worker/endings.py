"""How an attempt ended: its exit status, its `error.json` and its manifest, made an outcome."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from store.states import Outcome
from store.text import clean_text

ERROR = "error.json"
STOPPED_STATUS = 75
"""Exit status of a process that checkpointed because it was asked to stop (EX_TEMPFAIL)."""
USER_STATUS = 2
"""Exit status of a process that refused its configuration or data."""
_REPORTED = frozenset(
    {
        *(Outcome.USER, Outcome.OOM, Outcome.NON_FINITE, Outcome.COLLAPSED),
        *(Outcome.PAUSED, Outcome.BOUNDARY, Outcome.INFRA),
    }
)
_MAX_ERROR_BYTES = 1 << 16
_MAX_MESSAGE = 4000
_LOG_LINES = 5


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended."""

    outcome: Outcome
    code: str = ""
    """Stable, for programs."""
    message: str = ""
    """For a person."""
    exit_code: int | None = None
    """Of the process; negative for a signal. None where none was started."""


def classify(directory: Path, log_name: str, exit_code: int, *, was_asked: bool) -> Ending:
    """The ending of a process that has exited. `Outcome.SUCCEEDED` still needs a complete manifest.

    Args:
        was_asked: the supervisor asked it to stop.
    """
    if exit_code == 0:
        return Ending(Outcome.SUCCEEDED, exit_code=0)
    if (reported := _reported(directory, exit_code)) is not None:
        return reported
    if was_asked:  # also where it had to be killed: it resumes from its newest checkpoint
        return Ending(Outcome.STOPPED, "stopped", f"stopped on request, {_status(exit_code)}", exit_code)
    if exit_code == USER_STATUS:
        return Ending(Outcome.USER, "refused", _last_lines(directory / log_name), exit_code)
    return Ending(Outcome.INFRA, _code(exit_code), f"ended with {_status(exit_code)}", exit_code)


def _reported(directory: Path, exit_code: int) -> Ending | None:
    """What the process itself says about its failure."""
    try:
        with (directory / ERROR).open("rb") as stream:
            document = json.loads(stream.read(_MAX_ERROR_BYTES))
        outcome = Outcome(document["outcome"])
        if outcome not in _REPORTED:
            return None
        code, message = clean_text(str(document["code"]), 64), clean_text(str(document["message"]), _MAX_MESSAGE)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Ending(outcome, code, message, exit_code)


def _code(exit_code: int) -> str:
    return "signal" if exit_code < 0 else "exit_status"


def _status(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _last_lines(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _MAX_MESSAGE))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return clean_text("\n".join(text.strip().splitlines()[-_LOG_LINES:]), _MAX_MESSAGE)
