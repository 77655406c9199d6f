import stat
import threading
import time

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as DatabaseTimeoutError

from store import database as database_module
from store.database import Database, database_time, make_engine
from store.ids import new_id
from store.models.access import ApiKey
from store.models.base import utc_now
from store.settings import Settings

KEY = {"name": "n", "secret_sha256": "0" * 64, "scope": "read"}


def names(database: Database) -> list[str]:
    with database.read() as session:
        return sorted(session.scalars(select(ApiKey.name)))


def test_sqlite_is_durable_and_keeps_readers_apart_from_the_writer(database):
    with database.read() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_the_bundled_sqlite_is_newer_than_the_wal_reset_bug(database):
    with database.read() as session:
        version = session.execute(text("SELECT sqlite_version()")).scalar_one()
    assert tuple(map(int, version.split("."))) >= (3, 51, 3)


def test_the_data_directory_is_private(settings):
    make_engine(settings).dispose()
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700


def test_a_write_that_raises_leaves_nothing(any_database):
    with pytest.raises(RuntimeError), any_database.write() as session:
        session.execute(insert(ApiKey), [KEY])
        raise RuntimeError
    assert names(any_database) == []


def test_reading_changes_nothing(any_database):
    with any_database.read() as session:
        session.execute(insert(ApiKey), [KEY])
    assert names(any_database) == []


def test_loaded_objects_stay_readable_after_the_commit(any_database):
    with any_database.write() as session:
        key = ApiKey(**KEY)
        session.add(key)
    assert key.name == "n"


def test_a_writer_holds_the_lock_from_its_first_statement(database, sqlite_settings):
    """A deferred transaction would fail at its first write after another one wrote."""
    other = Database(make_engine(sqlite_settings))
    order = []

    def write_after_reading() -> None:
        with other.write() as session:
            session.execute(select(ApiKey)).all()
            order.append("second")
            session.execute(insert(ApiKey), [KEY | {"name": "second"}])

    with database.write() as session:
        session.execute(select(ApiKey)).all()
        thread = threading.Thread(target=write_after_reading)
        thread.start()
        thread.join(0.2)
        order.append("first")
        session.execute(insert(ApiKey), [KEY | {"name": "first"}])
    thread.join()
    other.dispose()
    assert order == ["first", "second"]
    assert names(database) == ["first", "second"]


def test_a_reader_does_not_wait_for_a_writer(database):
    with database.write() as session:
        session.execute(insert(ApiKey), [KEY])
        assert names(database) == []


def test_a_writer_that_gets_no_turn_says_so(database, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    with database.write(), pytest.raises(DatabaseTimeoutError), database.write():
        pass


def test_a_database_that_another_process_holds_is_an_operational_error(sqlite_settings, monkeypatch):
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    one, other = Database(make_engine(sqlite_settings)), Database(make_engine(sqlite_settings))
    with one.write() as session, pytest.raises(OperationalError, match="locked"):
        session.execute(select(ApiKey)).all()
        with other.write() as blocked:
            blocked.execute(select(ApiKey)).all()
    one.dispose()
    other.dispose()


def test_postgresql_ends_a_transaction_that_a_frozen_process_holds(postgres_settings, monkeypatch):
    monkeypatch.setattr(database_module, "IDLE_SECONDS", 0.2)
    frozen = Database(make_engine(postgres_settings))
    with pytest.raises(DBAPIError, match="IdleInTransaction"), frozen.write() as session:
        session.execute(select(ApiKey)).all()
        time.sleep(1.0)
        session.execute(select(ApiKey)).all()
    frozen.dispose()


def test_times_are_aware_and_in_utc(any_database):
    with any_database.write() as session:
        moment = database_time(session)
        key = ApiKey(**KEY, id=new_id(), created_at=moment)
        session.add(key)
        session.flush()
        session.expire(key)
        assert key.created_at == moment
        assert key.created_at.utcoffset().total_seconds() == 0
        assert abs((utc_now() - moment).total_seconds()) < 5


def test_a_naive_time_is_refused(any_database):
    with pytest.raises(Exception, match="no time zone"), any_database.write() as session:
        session.execute(insert(ApiKey), [KEY | {"created_at": utc_now().replace(tzinfo=None)}])


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_postgresql_url_gets_the_installed_driver(scheme):
    assert Settings(database_url=f"{scheme}://h/d").sqlalchemy_url == "postgresql+psycopg://h/d"
