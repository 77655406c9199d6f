r"""The process that compares formulas by computer algebra: killable, without secrets, without a network.

Run by its path, with `algebra.py` beside it: nothing else of this project is imported. The first process reads
requests, one JSON line each, and hands them to a child that it forks. A child that takes too long is killed and the
next one is there in milliseconds, because the libraries were imported before the fork. At the end of the input both
end: nothing outlives the process that started them, however that one died.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1


def isolate() -> str:
    """Leaves the network; returns how far that went."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) == 0:
        return "namespace"
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0:
        return "namespace"
    return "hook"


def limit(memory_bytes: int) -> None:
    """No more address space than this, no files written, no core dumped."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def refuse_effects() -> None:
    """Turns every attempt to reach outside into an exception. Python cannot take an audit hook away again."""
    forbidden = (
        *("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.kill", "ctypes."),
        *("os.remove", "os.rename", "os.mkdir", "os.chmod", "os.putenv", "shutil.", "urllib.", "pty."),
    )

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(forbidden) or (event == "open" and _is_write(arguments)):
            raise PermissionError(event)

    sys.addaudithook(hook)


def _is_write(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(sign in mode for sign in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def main() -> None:
    """Serves requests until the input ends."""
    settings = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = settings["path"]
    isolation = isolate()
    limit(settings["memory_bytes"])
    algebra = _beside_this_file("algebra")
    algebra.warm_up()
    out = sys.stdout.fileno()
    os.write(out, json.dumps({"ready": True, "isolation": isolation, "version": algebra.VERSION}).encode() + b"\n")
    Server(algebra.compare, out).serve()
    os._exit(0)  # at once: nothing is left to be put in order


def _beside_this_file(name: str) -> Any:
    """A module of this folder; the folder itself is on no path, so that it hides nothing."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), f"{name}.py"))  # noqa: PTH118, PTH120
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """Forwards requests to one child at a time."""

    def __init__(self, compare: Any, out: int) -> None:
        self._compare = compare
        self._out = out
        self._child: int | None = None
        self._to_child = self._from_child = -1
        self._pending = b""

    def serve(self) -> None:
        """Answers requests until the input ends; then the child is dead too."""
        try:
            while (line := self._read_line()) is not None:
                request = json.loads(line)
                reply = self._ask(line + b"\n", request["wall_seconds"], request["cpu_seconds"])
                if reply is None:
                    return
                os.write(self._out, reply + b"\n")
        finally:
            self._kill()

    def _read_line(self) -> bytes | None:
        while b"\n" not in self._pending:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line

    def _ask(self, line: bytes, wall_seconds: float, cpu_seconds: float) -> bytes | None:
        """The child's reply, or what became of the child; None when the input ended meanwhile."""
        if self._child is None:
            self._fork()
        assert self._child is not None
        started, used = time.monotonic(), _cpu_seconds(self._child)
        try:
            os.write(self._to_child, line)
        except BrokenPipeError:
            self._kill()
            return b'{"failed": "the worker died before it was asked"}'
        reply = b""
        while True:
            elapsed = time.monotonic() - started
            ready, _, _ = select.select([self._from_child, 0], [], [], max(0.0, wall_seconds - elapsed) or 0.02)
            if 0 in ready:
                chunk = os.read(0, 1 << 16)
                if not chunk:
                    return None
                self._pending += chunk
            if self._from_child in ready:
                chunk = os.read(self._from_child, 1 << 16)
                if not chunk:
                    self._kill()
                    return b'{"died": true}'
                reply += chunk
                if reply.endswith(b"\n"):
                    return reply[:-1]
            elapsed = time.monotonic() - started
            # a machine that gives the child no time is no fault of the answer: then it has a fifth more
            is_spent = _cpu_seconds(self._child) - used >= cpu_seconds or elapsed >= 1.2 * wall_seconds
            if elapsed >= wall_seconds and is_spent:
                self._kill()
                return b'{"timeout": true}'

    def _fork(self) -> None:
        request_end, self._to_child = os.pipe()
        self._from_child, reply_end = os.pipe()
        parent = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            status = 1
            try:
                os.close(self._to_child)
                os.close(self._from_child)
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == parent:
                    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                    os.dup2(0, 1)
                    refuse_effects()
                    self._work(request_end, reply_end)
                    status = 0
            finally:
                os._exit(status)
        os.close(request_end)
        os.close(reply_end)

    def _work(self, request_end: int, reply_end: int) -> None:
        with os.fdopen(request_end, "rb") as requests:
            for line in requests:
                request = json.loads(line)
                try:
                    reply = self._compare(request["answer"], request["reference"])
                except MemoryError:
                    return
                except Exception as error:  # whatever a library makes of an answer: it is not equal
                    reply = {"equal": False, "reason": type(error).__name__}
                os.write(reply_end, json.dumps(reply).encode() + b"\n")

    def _kill(self) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, 0)
            os.close(self._to_child)
            os.close(self._from_child)
            self._child = None


def _cpu_seconds(process: int) -> float:
    try:
        with open(f"/proc/{process}/stat", "rb") as stream:  # noqa: PTH123  # no more imports than needed
            fields = stream.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:  # no /proc here: the wall clock decides
        return float("inf")


if __name__ == "__main__":
    main()
