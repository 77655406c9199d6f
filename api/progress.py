"""An experiment's progress and its results, for a terminal and for a log."""

import shutil
import time
from typing import TextIO

from api.figures import column_labels, figure
from api.result_schemas import TableRow
from api.schemas import ExperimentRead, JobNode, RunSummary

_QUIET_SECONDS = 15.0
_LIVE = frozenset({"leased", "running", "stopping"})
_SHOWN = {"retry_wait": "waiting to retry", "leased": "starting"}


class Progress:
    """Shows an experiment again and again: a block drawn in place on a terminal, lines about changes elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._began = time.monotonic()
        self._num_lines = 0
        self._states: dict[str, tuple[str, int]] = {}
        self._last_summary = self._began

    def note(self, text: str) -> None:
        """One line that stays."""
        self._erase()
        self._print(f"{self._clock()} {text}")

    def show(self, experiment: ExperimentRead) -> None:
        """The experiment as it is now."""
        changes = self._changes(experiment)
        if self._is_terminal:
            self._erase()
            for line in changes:
                self._print(line)
            self._draw(experiment)
            return
        for line in changes:
            self._print(line)
        now = time.monotonic()
        if not changes and now - self._last_summary >= _QUIET_SECONDS:
            for line in _running(experiment):
                self._print(f"{self._clock()} {line}")
        if changes or now - self._last_summary >= _QUIET_SECONDS:
            self._last_summary = now

    def close(self) -> None:
        """Takes the block away; the lines stay."""
        self._erase()

    def _changes(self, experiment: ExperimentRead) -> list[str]:
        lines = []
        for job in experiment.jobs:
            for run in job.runs:
                seen = (run.state, run.attempt)
                if self._states.get(run.id, ("", 0)) != seen and run.state not in ("blocked", "queued", "leased"):
                    lines.append(f"{self._clock()} {_name(job, run)}  {_state(run)}")
                self._states[run.id] = seen
        return lines

    def _draw(self, experiment: ExperimentRead) -> None:
        width = shutil.get_terminal_size().columns - 1
        lines = [_summary(experiment), *_running(experiment)]
        self._stream.write("".join(f"{line[:width]}\n" for line in lines))
        self._stream.flush()
        self._num_lines = len(lines)

    def _erase(self) -> None:
        if self._num_lines:
            self._stream.write(f"\x1b[{self._num_lines}F\x1b[J")
            self._num_lines = 0

    def _print(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"[{seconds // 60:2d}:{seconds % 60:02d}]"


def _summary(experiment: ExperimentRead) -> str:
    bar = "#" * round(30 * experiment.num_finished / max(experiment.num_runs, 1))
    return f"{experiment.name}: [{bar:<30}] {experiment.num_finished} of {experiment.num_runs} runs finished"


def _running(experiment: ExperimentRead) -> list[str]:
    return [f"  {_name(job, run)}  {_state(run)}" for job in experiment.jobs for run in job.runs if run.state in _LIVE]


def _name(job: JobNode, run: RunSummary) -> str:
    return f"{job.name:<24} seed {run.seed}"


def _state(run: RunSummary) -> str:
    """A run's state in words. Messages come from the run's process: control characters never reach the terminal."""
    words = _SHOWN.get(run.state, run.state)
    if run.state == "running" and run.progress.total:
        words += f"  step {run.progress.step} of {run.progress.total}"
        if run.progress.message:
            words += f" ({_printable(run.progress.message)})"
    if run.attempt > 1:
        words += f"  attempt {run.attempt}"
    if run.status_reason and run.state in ("failed", "quarantined", "cancelled", "paused", "retry_wait"):
        words += f": {_printable(run.status_reason)}"
    return words


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def print_table(rows: list[TableRow]) -> None:
    """The tables of results, one per benchmark and metric: a line per method, a column per decoding."""
    print("\nmean ± std over train seeds (number of train seeds), rates in percent; eval seeds are averaged first")
    for benchmark, metric in dict.fromkeys((row.benchmark, row.metric) for row in rows):
        found = [row for row in rows if (row.benchmark, row.metric) == (benchmark, metric)]
        labels = column_labels(found)
        cells = {(row.method, row.benchmark, row.decoding, row.configuration): _cell(row) for row in found}
        lines = [[f"{benchmark} {metric}", *labels.values()]]
        for method in dict.fromkeys(row.method for row in found):
            lines.append([method, *(cells.get((method, *key), "") for key in labels)])
        widths = [max(len(line[column]) for line in lines) for column in range(len(labels) + 1)]
        print()
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(row: TableRow) -> str:
    if row.mean is None:
        return "no value"
    spread = "" if row.std is None else f" ± {figure(row.std, row.unit)}"
    missing = f", missing {','.join(map(str, row.missing_seeds))}" if row.missing_seeds else ""
    return f"{figure(row.mean, row.unit)}{spread} ({row.n}{missing})"
