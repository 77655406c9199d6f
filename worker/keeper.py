"""Starts a command and, beside it, a watcher that ends its whole process tree once the supervisor is gone.

`python -I -S keeper.py FD COMMAND...` forks: the child watches the supervisor's pipe, the parent becomes the command
by `exec`. The command thus keeps the process id, exit status and signals that the supervisor sees. The pipe replaces
PR_SET_PDEATHSIG, which fires when the thread that started the command ends, and not the process. Standard library
only: this file runs before the command, in an interpreter of its own.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

MARK = "LCO_ATTEMPT"
"""Environment variable that every process of an attempt inherits; by it strays in other sessions are found, such as
ranks of torchrun."""
GRACE_SECONDS = 3.0
"""Time the tree has to checkpoint after the supervisor's death: the platform promises no orphan after five seconds."""
_LOOK_SECONDS = 0.2


def marked(value: str) -> list[int]:
    """Process ids whose environment carries `MARK=value`, without the caller's."""
    needle = f"{MARK}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def signal_tree(group: int, value: str, number: signal.Signals) -> None:
    """Signals a process group and every stray that carries its mark."""
    for pid in marked(value):
        _send(os.kill, pid, number)
    _send(os.killpg, group, number)


def _send(send: Callable[[int, int], None], target: int, number: signal.Signals) -> None:
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        return


def watch(descriptor: int, leader: int, value: str) -> None:
    """Waits for the leader's end, or for EOF on the supervisor's pipe: then the tree gets SIGTERM and a grace.

    Leaves nothing of the tree alive in the end, itself included.
    """
    pipe = select.poll()
    pipe.register(descriptor, select.POLLIN | select.POLLHUP)
    while os.getppid() == leader:
        if pipe.poll(_LOOK_SECONDS * 1000):
            signal_tree(leader, value, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < deadline and os.getppid() == leader:
                time.sleep(0.05)
            break
    signal_tree(leader, value, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Becomes the command, with a watcher beside it."""
    descriptor, command = int(arguments[0]), arguments[1:]
    leader = os.getpid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # the log must not be held open by the watcher
            os.dup2(nowhere, stream)
        try:
            watch(descriptor, leader, os.environ[MARK])
        finally:
            os._exit(0)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
