"""Checks of the services: database, clock, broker, artifacts, API, and what the settings switch on."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pysqlite3.dbapi2
import redis
from sqlalchemy import Engine, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from api.client import Client
from api.doctor.findings import Finding, broken, ok, skipped, warning
from api.local_platform import is_ready
from api.transport import ApiFailure, connection
from store.database import Database, database_time, is_current, make_engine
from store.models.base import utc_now
from store.models.worker import Worker
from store.objects import StoreUnavailable, object_store
from store.settings import Settings

_FIRST_SOUND_SQLITE = (3, 51, 3)
_WITHDRAWN_SQLITE = (3, 52, 0)
_SKEW_SECONDS = 2.0
_ANSWER_SECONDS = 3.0
_ALIVE_SECONDS = 30.0
_SHARED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "9p", "fuse")


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _is_sqlite(settings: Settings) -> bool:
    return make_url(settings.sqlalchemy_url).get_backend_name() == "sqlite"


def _is_missing(settings: Settings) -> bool:
    """Whether there is no embedded database yet."""
    return _is_sqlite(settings) and not Path(make_url(settings.sqlalchemy_url).database or "").exists()


def database(settings: Settings) -> Finding:
    """Whether the database answers, is at the newest migration, and is one that keeps what it was given."""
    if _is_missing(settings):
        return skipped("there is no database yet: `lco up` makes it")
    with _engine(settings) as engine:
        try:
            is_new = is_current(engine)
            with engine.connect() as session:
                query = "PRAGMA journal_mode" if _is_sqlite(settings) else "SHOW server_version"
                answer = str(session.execute(text(query)).scalar())
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().splitlines()[0][:200]
            return broken(f"it does not answer: {reason}", "start it, or correct LCO_DATABASE_URL")
    name = f"SQLite {pysqlite3.dbapi2.sqlite_version}" if _is_sqlite(settings) else f"PostgreSQL {answer.split()[0]}"
    if not is_new:
        return broken(f"{name} is not at the newest migration", "run `lco migrate`")
    if _is_sqlite(settings):
        if answer != "wal":
            return broken(f"{name} runs in journal mode {answer}", "move LCO_DATA_DIR to a file system that can do WAL")
        version = tuple(pysqlite3.dbapi2.sqlite_version_info)
        if version < _FIRST_SOUND_SQLITE or version == _WITHDRAWN_SQLITE:
            cure = "install pysqlite3 0.6.1 or later: older SQLite can corrupt a database in WAL mode"
            return broken(f"{name} has the WAL-reset bug", cure)
        return ok(f"{name}, WAL, newest migration")
    return ok(f"{name}, newest migration")


def clock(settings: Settings) -> Finding:
    """How far this machine's clock is from the database's."""
    if _is_sqlite(settings):
        return skipped("SQLite has this machine's clock")
    with _engine(settings) as engine:
        try:
            with Database(engine).read() as session:
                before = utc_now()
                theirs = database_time(session)
                skew = (theirs - (before + (utc_now() - before) / 2)).total_seconds()
        except SQLAlchemyError:
            return skipped("the database does not answer")
    if abs(skew) > _SKEW_SECONDS:
        cure = "synchronise both clocks (NTP): schedules and times on pages are off; leases are not affected"
        return warning(f"the database's clock is {skew:+.1f} s from this machine's", cure)
    return ok(f"{skew * 1000:+.0f} ms from the database's")


def broker(settings: Settings) -> Finding:
    """Whether Redis answers and keeps what it was given."""
    if not settings.broker_url:
        return skipped("LCO_BROKER_URL is empty: the local loop polls the database")
    try:
        with redis.Redis.from_url(
            settings.broker_url, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS
        ) as client:
            memory = client.info("memory").get("maxmemory_policy", "")
            is_durable = bool(client.info("persistence").get("aof_enabled", 0))
            version = client.info("server").get("redis_version", "")
    except (redis.RedisError, ValueError) as error:
        cure = "start Redis, or correct LCO_BROKER_URL; meanwhile nothing is lost, but Celery workers are not woken"
        return broken(f"{_without_password(settings.broker_url)} does not answer ({type(error).__name__})", cure)
    if memory != "noeviction":
        return broken(
            f"Redis {version} evicts keys ({memory})", "start it with `--maxmemory-policy noeviction`: it drops rings"
        )
    if not is_durable:
        cure = "start it with `--appendonly yes`: rings then survive its restart, and runs start without delay"
        return warning(f"Redis {version} forgets on a restart", cure)
    return ok(f"Redis {version}, noeviction, appendonly")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}"


def artifacts(settings: Settings) -> Finding:
    """Whether run directories can be written, and lie where every worker sees them."""
    root = settings.artifacts
    if not root.exists():
        if settings.artifact_root == Path():
            return skipped(f"{root} does not exist yet; `lco up` makes it")
        return broken(f"{root} does not exist", "make it, or correct LCO_ARTIFACT_ROOT")
    try:
        with tempfile.NamedTemporaryFile(dir=root, prefix=".doctor-"):
            pass
    except OSError as error:
        return broken(f"{root} cannot be written: {error.strerror}", "give this user the right to write to it")
    kind = file_system(root)
    hosts = _hosts(settings)
    if len(hosts) > 1 and not settings.artifact_store and not kind.startswith(_SHARED_FILE_SYSTEMS):
        return broken(
            f"{root} is on {kind}, and workers run on {', '.join(sorted(hosts))}",
            "put LCO_ARTIFACT_ROOT, LCO_MODELS_ROOT, LCO_DATA_ROOT on one shared disk, or set LCO_ARTIFACT_STORE",
        )
    return ok(f"{root} is writable, on {kind}")


def store(settings: Settings) -> Finding:
    """Whether the object store takes and gives back a small object."""
    if not settings.artifact_store:
        return skipped("LCO_ARTIFACT_STORE is empty: run directories stay where they are")
    name = f".doctor-{uuid.uuid4().hex}"
    try:
        found = object_store(settings)
        assert found is not None
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory) / "probe"
            place.write_bytes(name.encode())
            found.put(place, name)
            is_kept = found.size_bytes(name) == len(name)
            found.remove(name)
    except (StoreUnavailable, ValueError) as error:
        cure = "correct LCO_ARTIFACT_STORE, and the credentials in this environment"
        return broken(str(error).split("\n")[0][:300], cure)
    if not is_kept:
        return broken("what was written is not there", "use a store that reads what it has just written")
    return ok(f"{urlsplit(settings.artifact_store).scheme} store takes and gives back")


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on, as the kernel names it."""
    best, kind = "", "an unknown file system"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if path.resolve().is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def _hosts(settings: Settings) -> set[str]:
    """Hosts of the workers that are alive; none where the database cannot be asked."""
    if _is_missing(settings):
        return set()
    with _engine(settings) as engine:
        try:
            with Database(engine).read() as session:
                now = database_time(session)
                rows = session.execute(select(Worker.host, Worker.last_seen_at)).all()
        except SQLAlchemyError:
            return set()
    return {host for host, seen in rows if (now - seen).total_seconds() < _ALIVE_SECONDS}


def api(settings: Settings) -> Finding:
    """Whether the API answers, and takes the key that the command line would send."""
    try:
        url, key = connection(settings, None, None)
    except ApiFailure as error:
        return skipped(str(error))
    try:
        httpx2.get(f"{url}/healthz", timeout=_ANSWER_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return warning(f"{url} does not answer ({type(error).__name__})", "start it with `lco up`, or correct LCO_URL")
    if not is_ready(url):
        return broken(f"{url} is not ready", f"open {url}/readyz and {settings.data_dir}/logs/api.log")
    try:
        with Client(url, key, settings=settings) as client:
            num_workers = sum(worker.is_alive for worker in client.workers())
    except ApiFailure as error:
        return broken(f"{url}: {error}", "set LCO_API_KEY to an active key; `lco keys create` makes one")
    if not num_workers:
        return warning(f"{url} answers; no worker is alive", "start `lco up` without --no-worker, or a Celery worker")
    return ok(f"{url} answers; {num_workers} worker{'s' if num_workers > 1 else ''} alive")


def endpoints(settings: Settings) -> Finding:
    """Whether the variables with the keys of LCO_ENDPOINTS are set here."""
    if not settings.endpoint_keys:
        return skipped("LCO_ENDPOINTS is empty: evaluations ask no server")
    named = sorted({name for names in settings.endpoint_keys.values() for name in names})
    if missing := [name for name in named if not os.environ.get(name)]:
        return warning(f"{', '.join(missing)} not set in this environment", "set it where the workers start")
    return ok(f"{len(settings.endpoint_keys)} servers, {len(named)} keys set")
