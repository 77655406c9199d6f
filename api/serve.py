"""The API as a process: `python -m api.serve`. It never migrates; `lco migrate` and `lco up` do."""

import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from api.app import create_app
from api.auth import create_key
from lco.manifest import write_durably
from store import logs, tracing
from store.database import Database, is_current, make_engine
from store.repositories.keys import Keys
from store.settings import Settings

GRACE_SECONDS = 3
"""Time that open requests have after SIGTERM; event streams end at once."""


class Server(uvicorn.Server):
    """A server that lets go of its event streams when it is told to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Notes the signal, and ends the streams."""
        app = self.config.app
        app.state.hub.close()  # type: ignore[union-attr]
        super().handle_exit(sig, frame)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to the host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def ensure_admin_key(database: Database, settings: Settings) -> str | None:
    """The first admin key, written to `data_dir/admin-key` with mode 0600; None when the database has a key already."""
    with database.write() as session:
        if Keys(session).exist():
            return None
        _, key = create_key(session, "admin", "admin")
        write_private(settings.data_dir / "admin-key", key)
    return key


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = os.umask(0o077)
    try:
        write_durably(path, text.encode() + b"\n")
    finally:
        os.umask(before)


def announce_key(key: str, settings: Settings) -> None:
    """Shows a new admin key, once."""
    print(f"admin key (shown once, kept in {settings.data_dir / 'admin-key'}): {key}", flush=True)


def address_of(host: str, port: int) -> str:
    """The URL under which a person on this machine reaches a bound server."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def bind(settings: Settings) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host.strip("[]"), settings.port))
    except OSError:
        bound.close()
        raise
    return bound


def serve(settings: Settings) -> int:
    """Serves until a signal; returns the exit code: 2 where a person must do something first."""
    database = Database(make_engine(settings))
    try:
        if not is_current(database.engine):
            print("the database is not at the newest migration: run `lco migrate`", file=sys.stderr)
            return 2
        with database.read() as session:
            has_key = Keys(session).exist()
        if not has_key and not is_loopback(settings.host):
            print(f"refusing to bind {settings.host} while no API key exists: run `lco migrate`", file=sys.stderr)
            return 2
        if (key := ensure_admin_key(database, settings)) is not None:
            announce_key(key, settings)
    finally:
        database.dispose()
    try:
        bound = bind(settings)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        print(f"cannot bind {place}: {error.strerror}; LCO_PORT or --port names another port", file=sys.stderr)
        return 2
    tracing.start("lco-api")
    address = address_of(settings.host, bound.getsockname()[1])
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="warning",
        log_config=None,  # it goes where the API's own log goes
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=16 * 1024,
    )
    write_private(settings.data_dir / "api-url", address)
    print(f"listening on {address}", flush=True)
    Server(config).run([bound])
    return 0


def main() -> int:
    """The command line: settings come from the environment."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.umask(0o077)
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        print(f"settings: {error}", file=sys.stderr)
        return 2
    logs.configure(settings, own=("lco",))
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
