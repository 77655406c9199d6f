"""`lco up`, `lco api`, `lco migrate`, `lco login-link`."""

import fcntl
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from api.children import Child, start_child
from api.client import Client
from api.commands.usage import UsageError
from api.local_platform import is_ready
from api.transport import ApiFailure
from store.settings import Settings
from store.tracker_config import missing_package, tracker_configs

_START_SECONDS = 90.0
_MAX_RESTARTS = 5
_RESTART_WINDOW_SECONDS = 120.0
_LOOK_SECONDS = 0.2
_CELERY_WORKER = ["python", "-m", "celery", "-A", "worker.app", "worker", "-P", "prefork"]
_CELERY_QUIET = ["--without-mingle", "--without-gossip"]


def api(options: Namespace) -> int:
    """Serves the API in this process."""
    from api import serve

    return serve.main()


def migrate_database(options: Namespace) -> int:
    """Migrates, and makes the admin key where there is none."""
    os.umask(0o077)
    _migrate(Settings.from_environment())
    print("the database is at the newest migration")
    return 0


def _migrate(settings: Settings) -> None:
    from api.serve import announce_key, ensure_admin_key
    from store.database import Database, make_engine, migrate

    migrate(settings)
    database = Database(make_engine(settings))
    try:
        if (key := ensure_admin_key(database, settings)) is not None:
            announce_key(key, settings)
    finally:
        database.dispose()


def login_link(options: Namespace) -> int:
    """Prints a one-time link."""
    with Client() as client:
        print(client.login_link())
    return 0


def up(options: Namespace) -> int:
    """Runs the platform until Ctrl-C or SIGTERM: the API and the supervisor, each a process of its own."""
    os.umask(0o077)
    settings = _settings(options)
    if options.celery and not settings.broker_url:
        raise UsageError("--celery needs LCO_BROKER_URL")
    for tracker in tracker_configs(settings.trackers):
        if problem := missing_package(tracker):
            raise UsageError(problem)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
    with only_one(settings.data_dir), _stop_requests() as stop:
        _migrate(settings)
        (settings.data_dir / "api-url").unlink(missing_ok=True)
        platform = _Platform(settings, _commands(settings, options))
        try:
            platform.start()
            if not platform.wait_until_ready(stop):
                return 0 if stop.is_set() else 1
            _welcome(settings, platform)
            return platform.watch(stop)
        finally:
            platform.stop()


def _settings(options: Namespace) -> Settings:
    given = {"port": options.port, "slots": options.slots}
    return Settings.from_environment(**{name: value for name, value in given.items() if value is not None})


def _commands(settings: Settings, options: Namespace) -> dict[str, list[str]]:
    """The processes of the platform, what takes work first."""
    commands = {"api": ["python", "-m", "api.serve"]}
    if options.no_worker:
        return commands
    if settings.trackers:
        commands["mirror"] = ["python", "-m", "worker.mirror"]
    if not settings.broker_url:
        return {"worker": ["python", "-m", "worker.local"], **commands}
    if not options.celery:
        print("LCO_BROKER_URL is set: start Celery workers and the beat yourself, or use --celery")
        return commands
    worker = [*_CELERY_WORKER, "-c", str(settings.slots), "-Q", ",".join(settings.queue_list), *_CELERY_QUIET]
    return {"worker": worker, "beat": ["python", "-m", "celery", "-A", "worker.app", "beat"], **commands}


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Holds the data directory: a second platform in it is refused."""
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"a platform runs in {data_dir} already; set LCO_DATA_DIR for another one") from None
        yield


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Platform:
    """The processes of `lco up`."""

    settings: Settings
    commands: dict[str, list[str]]
    children: dict[str, Child] = field(default_factory=dict)
    restarts: dict[str, list[float]] = field(default_factory=dict)
    url: str = ""

    def start(self) -> None:
        """Starts every process."""
        for name in self.commands:
            self._start(name)

    def _start(self, name: str) -> None:
        settings = self.settings
        port = self.url.rpartition(":")[2] or str(settings.port)  # an API that is started again keeps its port
        environment = os.environ | {
            "LCO_DATA_DIR": str(settings.data_dir.absolute()),
            "LCO_PORT": port,
            "LCO_SLOTS": str(settings.slots),
        }
        log = settings.data_dir / "logs" / f"{name}.log"
        self.children[name] = start_child(self.commands[name], log=log, env=environment)

    def wait_until_ready(self, stop: threading.Event) -> bool:
        """Whether the API answers, before a stop, an end of a process or too long a time."""
        place = self.settings.data_dir / "api-url"
        deadline = time.monotonic() + _START_SECONDS
        while not stop.wait(0.05) and time.monotonic() < deadline:
            for name, child in self.children.items():
                if not child.is_running():
                    print(f"lco: {_ending(name, child)}", file=sys.stderr)
                    return False
            if place.exists() and is_ready(url := place.read_text().strip()):
                self.url = url
                return True
        if not stop.is_set():
            print(f"lco: the API was not ready in {_START_SECONDS:g} s", file=sys.stderr)
        return False

    def watch(self, stop: threading.Event) -> int:
        """Starts again what dies, a bounded number of times, until a stop."""
        while not stop.wait(_LOOK_SECONDS):
            for name, child in list(self.children.items()):
                if child.is_running():
                    continue
                print(f"lco: {_ending(name, child)}", file=sys.stderr)
                child.stop(0)
                now = time.monotonic()
                recent = [at for at in self.restarts.get(name, []) if now - at < _RESTART_WINDOW_SECONDS]
                if len(recent) == _MAX_RESTARTS:
                    print(f"lco: {name} ended {_MAX_RESTARTS + 1} times; giving up", file=sys.stderr)
                    return 1
                self.restarts[name] = [*recent, now]
                if stop.wait(min(0.2 * 2 ** len(recent), 5.0)):
                    return 0
                self._start(name)
                print(f"lco: started {name} again", flush=True)
        return 0

    def stop(self) -> None:
        """Stops every process: the supervisor has time to let its runs checkpoint."""
        for child in self.children.values():
            if child.is_running():
                child.process.send_signal(child.stop_signal)
        for name, child in self.children.items():
            child.stop(10.0 if name == "api" else self.settings.stop_seconds + 10.0)


def _ending(name: str, child: Child) -> str:
    return f"{name} ended with status {child.process.returncode}; the end of {child.log}:\n{child.tail()}"


def _welcome(settings: Settings, platform: _Platform) -> None:
    """Prints where the platform is."""
    print(f"the platform is up: {platform.url}")
    print(f"data: {settings.data_dir.absolute()}; logs: {settings.data_dir.absolute() / 'logs'}")
    try:
        with Client(platform.url, settings=settings) as client:
            print(f"log in, once: {client.login_link()}")
    except ApiFailure:
        print("log in with an API key; `lco login-link` prints a link where LCO_API_KEY is set")
    print("Ctrl-C stops it", flush=True)
