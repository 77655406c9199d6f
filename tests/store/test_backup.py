import json
import os
import threading

import pytest
import sqlalchemy as sa

from lco.manifest import MANIFEST
from store.backup import back_up, restore, verify
from store.database import Database, make_engine
from store.fsck import check
from store.models.notification import Delivery, WebhookEndpoint
from store.models.project import DEFAULT_PROJECT_ID
from store.models.record import Completion
from store.models.tables import Base
from store.notifications import publish as publish_event
from store.reaper import SilenceWatch, reap
from store.repositories.runs import Runs
from store.settings import Settings
from store.states import RunState
from tests.store.test_artifacts import publish


def rows_of(settings):
    """Every row of every table that is backed up, as Python values."""
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            return {
                table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
                for table in Base.metadata.sorted_tables
                if table.name not in ("sessions", "workers")
            }
    finally:
        engine.dispose()


@pytest.fixture(autouse=True)
def settings_name_the_database(request):
    """The rig of PostgreSQL shares a database whose address its settings do not have."""
    if "rig" in request.fixturenames:
        rig = request.getfixturevalue("rig")
        if rig.database.engine.dialect.name == "postgresql":
            url = rig.database.engine.url.render_as_string(hide_password=False)
            rig.settings = rig.settings.model_copy(update={"database_url": url})


def filled(rig):
    """A platform with a finished run, one under way, and one that waits."""
    rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("pairs", seeds=[0, 1]))
    publish(rig, rig.started())
    (rig.settings.data).mkdir(parents=True)
    (rig.settings.data / "a.jsonl").write_text("{}\n")
    return rig.started()


@pytest.fixture
def empty(tmp_path):
    """Settings of a platform that does not exist yet, on SQLite."""
    return Settings(data_dir=tmp_path / "restored")


def test_a_restored_platform_has_the_same_rows_and_files(rig, empty, tmp_path):
    filled(rig)
    made = back_up(rig.settings, tmp_path / "backups")
    assert (made.missing, verify(made.directory)) == ([], [])
    restore(empty, made.directory)
    assert rows_of(empty) == rows_of(rig.settings)
    assert made.num_rows == sum(map(len, rows_of(empty).values())) > 10
    for path in rig.settings.artifacts.rglob("*"):
        if path.is_file():
            assert (empty.artifacts / path.relative_to(rig.settings.artifacts)).read_bytes() == path.read_bytes()
    assert (empty.data / "a.jsonl").read_text() == "{}\n"


def test_a_backup_of_sqlite_fills_postgresql(sqlite_rig, postgres_database, tmp_path):
    filled(sqlite_rig)
    made = back_up(sqlite_rig.settings, tmp_path / "backups")
    target = Settings(data_dir=tmp_path / "restored", database_url=postgres_database)
    restore(target, made.directory)
    assert rows_of(target) == rows_of(sqlite_rig.settings)


def test_a_run_that_was_under_way_goes_on_after_a_restore(sqlite_rig, empty, tmp_path):
    under_way = filled(sqlite_rig)
    restore(empty, back_up(sqlite_rig.settings, tmp_path / "backups").directory)
    database = Database(make_engine(empty))
    watch = SilenceWatch(20.0, iter(range(0, 100, 15)).__next__)
    for _ in range(4):
        with database.write() as session:
            reap(session, watch, 5)
    with database.read() as session:
        assert Runs(session).get(under_way.run_id).state == RunState.QUEUED
    assert [f for f in check(database, empty) if f.check != "checkpoints"] == []
    database.dispose()


def test_alerts_of_the_backup_are_not_sent_by_the_restored_platform(sqlite_rig, empty, tmp_path):
    filled(sqlite_rig)
    with sqlite_rig.database.write() as session:
        session.add(WebhookEndpoint(channel={"kind": "webhook", "url": "https://example.com"}, event_types=["*"]))
        session.flush()
        publish_event(session, "job.failed", "job_x", {}, DEFAULT_PROJECT_ID)
    restore(empty, back_up(sqlite_rig.settings, tmp_path / "backups").directory)
    engine = make_engine(empty)
    with engine.connect() as connection:
        assert list(connection.scalars(sa.select(Delivery.status))) == ["failed"]
    engine.dispose()


def test_unchanged_files_are_shared_with_the_backup_before(sqlite_rig, tmp_path):
    filled(sqlite_rig)
    first = back_up(sqlite_rig.settings, tmp_path / "backups")
    (sqlite_rig.settings.data / "b.jsonl").write_text("{}\n")
    second = back_up(sqlite_rig.settings, tmp_path / "backups")
    assert (second.num_shared, second.num_files) == (first.num_files, first.num_files + 1)
    assert os.path.samefile(first.directory / "data/a.jsonl", second.directory / "data/a.jsonl")
    assert verify(second.directory) == []


def test_a_damaged_backup_is_refused_and_leaves_the_database_empty(sqlite_rig, empty, tmp_path):
    filled(sqlite_rig)
    made = back_up(sqlite_rig.settings, tmp_path / "backups")
    victim = made.directory / "database" / "runs.jsonl.gz"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
    assert verify(made.directory) == ["database/runs.jsonl.gz"]
    with pytest.raises(ValueError, match=r"damaged: database/runs.jsonl.gz"):
        restore(empty, made.directory)
    assert rows_of(empty)["jobs"] == []


def test_a_platform_with_jobs_is_not_restored_over(sqlite_rig, tmp_path):
    filled(sqlite_rig)
    made = back_up(sqlite_rig.settings, tmp_path / "backups")
    with pytest.raises(ValueError, match="not empty"):
        restore(sqlite_rig.settings, made.directory)


def test_an_interrupted_restore_goes_on(sqlite_rig, empty, tmp_path, monkeypatch):
    filled(sqlite_rig)
    made = back_up(sqlite_rig.settings, tmp_path / "backups")

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("store.backup.load", die)
        with pytest.raises(KeyboardInterrupt):
            restore(empty, made.directory)
    restore(empty, made.directory)
    assert rows_of(empty) == rows_of(sqlite_rig.settings)


def test_an_interrupted_backup_is_no_backup(sqlite_rig, tmp_path, monkeypatch):
    filled(sqlite_rig)

    def die(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("store.backup.write_durably", die)
    with pytest.raises(OSError, match="No space"):
        back_up(sqlite_rig.settings, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_folder_inside_what_is_backed_up_is_refused(sqlite_rig):
    with pytest.raises(ValueError, match="choose another folder"):
        back_up(sqlite_rig.settings, sqlite_rig.settings.artifacts / "backups")


def test_another_revision_is_refused_by_name(sqlite_rig, empty, tmp_path):
    filled(sqlite_rig)
    made = back_up(sqlite_rig.settings, tmp_path / "backups")
    path = made.directory / MANIFEST
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "revision": "20991231"}))
    with pytest.raises(ValueError, match="revision 20991231"):
        restore(empty, made.directory)


def test_backups_made_under_load_are_consistent(rig, tmp_path):
    """Submissions, claims and ends go on while ten backups are made; each restores to a store without a finding."""
    is_over = threading.Event()

    def work():
        while not is_over.is_set():
            rig.submit("sft", seeds=[0, 1])
            publish(rig, rig.started())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        made = [back_up(rig.settings, tmp_path / "backups") for _ in range(10)]
    finally:
        is_over.set()
        worker.join()
    for number in (0, 4, 9):
        target = Settings(data_dir=tmp_path / f"restored-{number}")
        restore(target, made[number].directory)
        database = Database(make_engine(target))
        assert [f for f in check(database, target) if f.check not in ("orphans", "checkpoints")] == []
        database.dispose()


def test_what_rows_say_is_kept_to_the_character(sqlite_rig, empty, tmp_path):
    taken = filled(sqlite_rig)
    text = 'a "quoted" \\ line\nwith \u2028 and \U0001f600'
    with sqlite_rig.database.write() as session:
        session.add(
            Completion(
                run_id=taken.run_id,
                position=0,
                benchmark="sums",
                example_id="1",
                decoding="greedy",
                train_seed=0,
                eval_seed=None,
                prompt=text,
                completion=text,
                reference="",
                extracted=None,
                verdict="correct",
                correct=True,
                value=0.1 + 0.2,
                reason=None,
                truncated=False,
                choice_logprobs=None,
                details={"a": [1, None, {"b": text}]},
            )
        )
    restore(empty, back_up(sqlite_rig.settings, tmp_path / "backups").directory)
    assert rows_of(empty)["completions"] == rows_of(sqlite_rig.settings)["completions"]
