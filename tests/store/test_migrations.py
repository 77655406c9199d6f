import re
import threading
from uuid import UUID

import pysqlite3
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from store.database import is_current, make_engine, migrate
from store.models.run import Run
from store.models.tables import Base
from store.settings import Settings
from store.states import TERMINAL, RunState


@pytest.fixture
def empty(settings: Settings, database_url: str) -> Settings:
    """Settings of a database without tables, on each engine."""
    return settings.model_copy(update={"database_url": database_url})


@pytest.fixture
def engine(empty: Settings):
    engine = make_engine(empty)
    yield engine
    engine.dispose()


def test_migrations_run_up_down_and_up_again(empty, engine):
    migrate(empty)
    assert is_current(engine)
    migrate(empty, "base")
    assert not is_current(engine)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    migrate(empty)
    assert is_current(engine)


def test_migrating_again_changes_nothing(empty, engine):
    migrate(empty)
    migrate(empty)
    assert is_current(engine)


@pytest.mark.filterwarnings("ignore:autogenerate skipping")
def test_migrations_create_exactly_the_models(empty, engine):
    migrate(empty)
    with engine.connect() as connection:
        options = {"compare_type": True, "include_object": _is_comparable(connection.dialect.name)}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    assert differences == []


def _is_comparable(dialect: str):
    def include(item, name, kind, reflected, compared):
        # SQLite reports no expressions of an index; the next test compares this one's own words.
        return not (dialect == "sqlite" and kind == "index" and name == "ix_runs_claim")

    return include


def test_migrations_create_the_indexes_of_the_models_word_for_word(settings, sqlite_settings, tmp_path):
    from_models = create_engine(f"sqlite:///{tmp_path}/models.sqlite3")
    Base.metadata.create_all(from_models)
    from_migrations = make_engine(sqlite_settings)
    assert _indexes(from_models) == _indexes(from_migrations)
    from_models.dispose()
    from_migrations.dispose()


def _indexes(engine: Engine) -> dict[str, str]:
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    with engine.connect() as connection:
        rows = connection.execute(text(query)).all()
    return {name: re.sub(r"\s+", " ", sql) for name, sql in rows}


def test_several_may_migrate_at_the_same_time(empty, engine):
    failures = []

    def attempt() -> None:
        try:
            migrate(empty)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert is_current(engine)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_the_database_itself_refuses_to_leave_a_terminal_state(rig, state):
    job = rig.submit()
    with rig.database.write() as session:
        session.execute(update(Run).where(Run.job_id == job.id).values(state=state))
    with pytest.raises(DBAPIError, match="never changes its state"), rig.database.write() as session:
        session.execute(update(Run).where(Run.job_id == job.id).values(state=RunState.QUEUED))
    with rig.database.write() as session:
        session.execute(update(Run).where(Run.job_id == job.id).values(state=state, version=9))
    assert (rig.runs(job.id)[0].state, rig.runs(job.id)[0].version) == (state, 9)


def test_completions_of_before_keep_their_score(empty, engine):
    migrate(empty, "20261124")
    columns = "run_id, position, benchmark, example_id, decoding, train_seed, prompt, completion, reference, verdict"
    alone = create_engine(engine.url) if engine.dialect.name == "postgresql" else make_unchecked(engine.url.database)
    with alone.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("ALTER TABLE completions DROP CONSTRAINT fk_completions_run_id_runs"))
        for position, correct in enumerate(("true", "false", "null")):
            values = f"'{UUID(int=1).hex}', {position}, 'sums', '1', 'greedy', 0, 'p', 'c', 'r', 'v', {correct}, false"
            connection.execute(text(f"INSERT INTO completions ({columns}, correct, truncated) VALUES ({values})"))
    alone.dispose()
    migrate(empty)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT value, sample_index FROM completions ORDER BY position")).all()
    assert [tuple(row) for row in rows] == [(1.0, 0), (0.0, 0), (None, 0)]


def make_unchecked(path: str) -> Engine:
    """An engine on a SQLite file that leaves foreign keys unchecked."""
    return create_engine("sqlite://", creator=lambda: pysqlite3.connect(path), poolclass=NullPool)
