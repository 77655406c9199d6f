"""Engine, transactions and migrations: SQLite (embedded) or PostgreSQL.

SQLite runs in WAL with `synchronous=FULL`, and every write transaction starts with BEGIN IMMEDIATE: a transaction that
turns from reader to writer fails at once when another one writes, whatever the busy timeout.
"""

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.resources import files
from typing import Any, Self
from uuid import UUID

import pysqlite3.dbapi2
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as DatabaseTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from store.confinement import confine
from store.models.base import UtcDateTime, utc_now
from store.settings import Settings

BUSY_SECONDS = 5.0
"""How long a writer waits for another one before the database counts as unavailable."""
IDLE_SECONDS = 60.0
"""How long a frozen process may hold a PostgreSQL transaction, and with it row locks, before the server ends it."""
_IS_WRITER = "lco_is_writer"
_MIGRATION_LOCK = 0x6C636F  # any constant: makes migrators of one PostgreSQL database take turns


def make_engine(settings: Settings, *, is_migrating: bool = False) -> Engine:
    """The engine of the configured database; makes the data directory (mode 0700) where SQLite needs it.

    Args:
        is_migrating: leave SQLite's foreign keys unchecked, as it wants it where a schema changes: with them it refuses
            new columns that name another table.
    """
    url = make_url(settings.sqlalchemy_url)
    if url.get_backend_name() == "sqlite":
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        engine = create_engine(url, module=pysqlite3.dbapi2, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        if is_migrating:
            event.listen(engine, "connect", _leave_keys_unchecked)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {
        "lock_timeout": f"{int(BUSY_SECONDS * 1000)}",
        "idle_in_transaction_session_timeout": f"{int(IDLE_SECONDS * 1000)}",
        "timezone": "UTC",
    }
    return create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            # A server that vanished without a word (power, a dropped NAT entry) is noticed within seconds, not hours.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
        },
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: `_begin_sqlite` does
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _leave_keys_unchecked(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys=OFF").close()


def _begin_sqlite(connection: Connection) -> None:
    is_writer = connection.get_execution_options().get(_IS_WRITER, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


class Database:
    """Transactions of one engine. The sessions it gives keep their loaded objects readable after the commit."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**{_IS_WRITER: True})
        # Threads of one process queue here instead of in SQLite's busy handler, which sleeps and is unfair.
        self._turn = threading.Lock() if engine.dialect.name == "sqlite" else None
        self._project_id: UUID | None = None
        self._before_commit: Callable[[Session], None] | None = None

    def confined(self, project_id: UUID, before_commit: Callable[[Session], None] | None = None) -> Self:
        """The same database, whose sessions see the rows of one project alone and add to it.

        Args:
            before_commit: the last thing done in each transaction that writes and did not fail.
        """
        found = copy.copy(self)
        found._project_id, found._before_commit = project_id, before_commit
        return found

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in a transaction that writes: committed at the end, rolled back on an exception.

        Raises:
            sqlalchemy.exc.TimeoutError: another thread wrote for too long. Like `OperationalError`: try again later.
        """
        if self._turn is not None and not self._turn.acquire(timeout=BUSY_SECONDS):
            raise DatabaseTimeoutError(f"no turn to write within {BUSY_SECONDS:g} s")
        try:
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                self._prepare(session)
                yield session
                if self._before_commit is not None:
                    self._before_commit(session)
        finally:
            if self._turn is not None:
                self._turn.release()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; what it changes is rolled back."""
        with Session(self.engine, expire_on_commit=False) as session:
            self._prepare(session)
            yield session

    def _prepare(self, session: Session) -> None:
        if self._project_id is not None:
            confine(session, self._project_id)

    def dispose(self) -> None:
        """Closes the pooled connections."""
        self.engine.dispose()


def now_expression(session: Session) -> ColumnElement[datetime] | datetime:
    """The database's clock, for use in a statement. SQLite's is this machine's, so a bound value does."""
    if session.get_bind().dialect.name == "postgresql":
        return func.clock_timestamp(type_=UtcDateTime())
    return utc_now()


def database_time(session: Session) -> datetime:
    """The database's clock, read now: orders and back-offs do not depend on the clock of the process that writes."""
    expression = now_expression(session)
    if isinstance(expression, datetime):
        return expression
    return session.execute(select(expression)).scalar_one()


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    return config


def migrate(settings: Settings, revision: str = "head") -> None:
    """Brings the database to a revision, in one transaction; several at a time take turns.

    Args:
        revision: `head`, `base` or a revision; going down is for development.
    """
    engine = make_engine(settings, is_migrating=True)
    try:
        with engine.execution_options(**{_IS_WRITER: True}).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config = _alembic()
            config.attributes["connection"] = connection
            script = ScriptDirectory.from_config(config)
            current = MigrationContext.configure(connection).get_current_revision()
            if revision == "head" and current in script.get_heads():
                return
            is_down = revision == "base" or (
                current is not None
                and revision != "head"
                and any(step.revision == revision for step in script.iterate_revisions(current, "base"))
            )
            broken = _broken_keys(connection)
            (command.downgrade if is_down else command.upgrade)(config, revision)
            if new := _broken_keys(connection) - broken:
                raise RuntimeError(f"the migration would leave rows that name others which are gone: {sorted(new)[:3]}")
    finally:
        engine.dispose()


def _broken_keys(connection: Connection) -> set[tuple[Any, ...]]:
    """Rows of SQLite whose foreign keys lead nowhere, which nothing has checked during a migration."""
    if connection.dialect.name != "sqlite":
        return set()
    return {tuple(map(str, row)) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def is_current(engine: Engine) -> bool:
    """Whether the database is at the newest migration that this installation knows."""
    with engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    return set(heads) == set(ScriptDirectory.from_config(_alembic()).get_heads())
