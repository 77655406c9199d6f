"""The whole platform as child processes: for `make demo` and the tests that play it from outside.

Embedded it is `lco up`; with services it is PostgreSQL, Redis and `lco up --celery` (API, Celery worker, beat).
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from api.children import Child, start_child
from api.local_services import LocalServer, start_postgresql, start_redis
from store.settings import Settings

UP = ["python", "-m", "api.cli", "up"]
_MAX_REVIVED = 20
_START_SECONDS = 90.0
_STOP_SECONDS = 90.0  # runs have `stop_seconds` to checkpoint


class PlatformFailure(Exception):
    """A process of the platform did not start, or ended by itself."""


class LocalPlatform:
    """The platform's processes, in a data directory; a context manager that stops them in order.

    Args:
        data_dir: everything the platform writes, kept from one start to the next.
        with_services: PostgreSQL, Redis and Celery instead of SQLite and the local loop.
        environment: further `LCO_*` variables.
        up: the command that starts `lco up`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        with_services: bool = False,
        environment: dict[str, str] | None = None,
        up: list[str] = UP,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.with_services = with_services
        self.url = ""
        """Address of the API, once started."""
        self.environment = os.environ | {"LCO_DATA_DIR": str(self.data_dir)} | (environment or {})
        """What every process is given; with services also the addresses of these."""
        self.children: dict[str, Child] = {}
        self._up = up
        self._commands: dict[str, list[str]] = {}
        self._servers: list[LocalServer] = []
        self._num_revived = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts every process and waits until the API is ready.

        Raises:
            PlatformFailure: one of them ended, or the API was not ready in time; the message shows the end of its log.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.data_dir / "api-url").unlink(missing_ok=True)  # of an earlier start
        self.environment.setdefault("LCO_PORT", str(_usual_or_free_port()))
        if self.with_services:
            self._start_servers()
        self.start_process("up", [*self._up, *(["--celery"] if self.with_services else [])])
        self.url = self._wait_until_ready()
        self.environment["LCO_PORT"] = self.url.rpartition(":")[2]  # a revived API keeps its address

    def start_process(self, name: str, command: list[str]) -> Child:
        """Starts one process of the platform, or starts it again."""
        logs = self.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        self._commands[name] = command
        self.children[name] = start_child(command, log=logs / f"{name}.log", env=self.environment)
        return self.children[name]

    def check(self) -> None:
        """Raises PlatformFailure if a process has ended."""
        for name, child in self.children.items():
            if not child.is_running():
                raise PlatformFailure(_ending(name, child))

    def revive(self) -> list[str]:
        """Starts processes again that a signal has ended; returns their names.

        Raises:
            PlatformFailure: a process ended by itself, or signals end it again and again.
        """
        revived = []
        for name, child in list(self.children.items()):
            if child.is_running():
                continue
            if child.process.returncode >= 0 or self._num_revived >= _MAX_REVIVED:
                raise PlatformFailure(_ending(name, child))
            child.stop(0)
            self.start_process(name, self._commands[name])
            self._num_revived += 1
            revived.append(name)
        return revived

    def stop(self) -> None:
        """Stops every process: first what takes work, last what keeps it."""
        for child in self.children.values():
            if child.is_running():
                child.process.send_signal(child.stop_signal)
        for child in self.children.values():
            child.stop(_STOP_SECONDS)
        self.children.clear()
        while self._servers:
            self._servers.pop().stop()

    def _start_servers(self) -> None:
        directory = self.data_dir / "services"
        for start, variable in ((start_postgresql, "LCO_DATABASE_URL"), (start_redis, "LCO_BROKER_URL")):
            if not self.environment.get(variable):
                server = start(directory)
                self._servers.append(server)
                self.environment[variable] = server.url

    def _wait_until_ready(self) -> str:
        address = self.data_dir / "api-url"
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            self.check()
            if address.exists() and is_ready(url := address.read_text().strip()):
                return url
            time.sleep(0.05)
        logs = ", ".join(str(child.log) for child in self.children.values())
        raise PlatformFailure(f"the API was not ready within {_START_SECONDS:g} s; see {logs}")


def _ending(name: str, child: Child) -> str:
    return f"the process `{name}` ended with status {child.process.returncode}; the end of {child.log}:\n{child.tail()}"


def is_ready(url: str) -> bool:
    """Whether an API answers there and can work."""
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{url}/readyz", timeout=2).status_code == 200
    return False


def running_at(data_dir: Path) -> str | None:
    """The address of the platform that already runs in a data directory."""
    try:
        url = (data_dir / "api-url").read_text().strip()
    except OSError:
        return None
    return url if is_ready(url) else None


def _usual_or_free_port() -> int:
    """The usual port, or 0 (any free one) where somebody has it."""
    usual = Settings().port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((Settings().host, usual))
        except OSError:
            return 0
    return usual
