"""Child processes that never outlive the process that started them, however that ended."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WATCH = 'cat >/dev/null; kill -s "$0" "$1"'


@dataclass(slots=True)
class Child:
    """A running child process, and a watcher that stops it at the end-of-file of a pipe held by this process."""

    process: "subprocess.Popen[bytes]"
    watcher: "subprocess.Popen[bytes]"
    stop_signal: signal.Signals
    log: Path
    """Where its output goes."""

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def tail(self, size: int = 2000) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-size:].strip()

    def stop(self, seconds: float) -> None:
        """Sends the stop signal and waits; kills what does not answer in time."""
        self.watcher.kill()
        self.watcher.communicate()
        if self.is_running():
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_child(
    command: list[str], *, log: Path, stop_signal: signal.Signals = signal.SIGTERM, **options: Any
) -> Child:
    """Starts a command with its output in a file.

    Args:
        command: the program and its arguments; `python` is this interpreter.
        stop_signal: what asks it to end.
        options: further arguments of `subprocess.Popen`.
    """
    if command[0] == "python":
        command = [sys.executable, *command[1:]]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C is for the parent, which then stops its children in order
            **options,
        )
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, stop_signal.name.removeprefix("SIG"), str(process.pid)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return Child(process, watcher, stop_signal, log)
