"""Following something to its end: a line for every change; bars on a terminal, else a line every few seconds."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from api import schemas
from api.calls import base
from api.client import Client
from api.commands.tables import is_terminal, safe
from api.transport import ApiFailure

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
_QUIET_SECONDS = 10.0
"""Time between two lines about progress alone."""
_TROUBLED = frozenset({"failed", "quarantined", "retry_wait"})
"""States in which a run has an error to tell."""
_LIVE = frozenset({"leased", "running", "stopping"})
NamedRuns = Sequence[tuple[str, schemas.RunSummary]]
"""Runs, each with its job's name."""


def watch_until_end(client: Client, identifier: str) -> int:
    """Shows what changes until the end; 0 when all succeeded, else 1."""
    with contextlib.ExitStack() as stack:
        if is_terminal():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            bars = stack.enter_context(Progress(*columns, TimeRemainingColumn(), transient=True))
            return _watch(client, identifier, _Bars(bars).show, lambda line: bars.console.out(line, highlight=False))
        return _watch(client, identifier, _Lines().show, _say)


def _watch(client: Client, identifier: str, show: Callable[[NamedRuns, bool], None], say: Callable[[str], None]) -> int:
    """Says every change, and lets the progress be shown after each look.

    Args:
        show: is given the runs, and whether anything about them was said this time.
    """
    seen: dict[str, str] = {}
    answered = time.monotonic()
    while True:
        try:
            found = client.show(identifier)
            answered = time.monotonic()
        except ApiFailure as error:
            if not base.is_outage(error) or time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        runs = _runs(found)
        has_spoken = False
        for name, run in runs:
            line = f"{run.state}{f': {run.status_reason}' if run.status_reason else ''}"
            if seen.get(run.id) != line:
                seen[run.id] = line
                has_spoken = True
                if run.state in _TROUBLED and (trouble := client.run(run.id).error) and trouble.message:
                    line = f"{line}: {trouble.message}"
                say(safe(f"{name} seed {run.seed}: {line}"))
        show(runs, has_spoken)
        if base.is_final(found):
            status = str(getattr(found, "status", "") or getattr(found, "state", ""))
            say(f"{identifier} {status}")
            return 0 if status == "succeeded" else 1
        time.sleep(POLL_SECONDS)


def _say(line: str) -> None:
    print(line, flush=True)


class _Lines:
    """Progress as lines, every few seconds in which nothing else was said."""

    def __init__(self) -> None:
        self._spoke = time.monotonic()

    def show(self, runs: NamedRuns, has_spoken: bool) -> None:
        """Prints a line per running run where it is time."""
        if has_spoken:
            self._spoke = time.monotonic()
        if time.monotonic() - self._spoke <= _QUIET_SECONDS:
            return
        self._spoke = time.monotonic()
        for name, run in runs:
            if run.state == "running":
                step = f"{run.progress.step}/{run.progress.total} " if run.progress.total else ""
                _say(safe(f"{name} seed {run.seed}: {step}{run.progress.message or 'starting'}"))


class _Bars:
    """Progress as bars: one for all runs where there are several, and one for each that is live."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, runs: NamedRuns, has_spoken: bool) -> None:
        """Draws the bars as they are now."""
        live = {run.id: (name, run) for name, run in runs if run.state in _LIVE}
        if len(runs) > 1:
            self._set("", "runs finished", sum(run.finished_at is not None for _, run in runs), len(runs))
        for gone in self._bars.keys() - live.keys() - {""}:
            self._progress.remove_task(self._bars.pop(gone))
        for identifier, (name, run) in live.items():
            said = f"{name} seed {run.seed}  {run.progress.message}"[:60].strip()
            self._set(identifier, safe(said), run.progress.step, run.progress.total or None)

    def _set(self, key: str, text: str, done: int, total: int | None) -> None:
        if key not in self._bars:
            self._bars[key] = self._progress.add_task(text, total=total)
        self._progress.update(self._bars[key], description=text, completed=done, total=total)


def _runs(found: object) -> NamedRuns:
    """The runs of an object, each with its job's name."""
    if isinstance(found, schemas.ExperimentRead):
        return [(job.name, run) for job in found.jobs for run in job.runs]
    if isinstance(found, schemas.JobRead):
        return [(found.name, run) for run in found.runs]
    if isinstance(found, schemas.RunRead):
        return [(found.job_name, found)]
    raise ApiFailure(0, "no-id", "only a job, an experiment or a run can be watched")
