"""Watchers: each new model acts once, and only when it is whole."""

import json
import os
import struct
import threading
import time

import pytest
from sqlalchemy import select

from store.database import Database, make_engine
from store.ids import encode_id
from store.models.job import Job
from store.models.notification import Notification
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.models import Models
from store.repositories.schedules import Schedules
from store.rows import CheckpointRow, Collected
from store.schedule_specs import ScheduleSpec
from store.states import Outcome
from tests.store import conftest as rigs
from tests.worker import test_watched_hub as hubs
from worker.watchers import Watchers, is_whole_model

hub, sqlite_rig = hubs.hub, rigs.sqlite_rig

EVALUATION = {
    "kind": "evaluation",
    "name": "look-at-it",
    "config": {"policy": "{found.model}", "benchmarks": [{"name": "sums"}]},
    "metadata": {"found": "{found.name}"},
}


def safetensors(num_bytes=16):
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, num_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(num_bytes)


def write_model(root, name, *, age=3600.0, **files):
    place = root / name
    place.mkdir(parents=True)
    content = {"config.json": b"{}", "model.safetensors": safetensors()} | files
    for file, data in content.items():
        if data is not None:
            (place / file).write_bytes(data)
    then = time.time() - age
    for path in (*place.iterdir(), place):
        os.utime(path, (then, then))
    return place


class Watch:
    """A watcher over a models root."""

    def __init__(self, settings, database):
        self.settings, self.database = settings, database
        self.watchers = Watchers(settings, database)

    def add(self, **more):
        trigger = {"kind": "directory", "poll_seconds": 2} | more.pop("trigger", {})
        spec = {"name": "w", "trigger": trigger, "action": {"kind": "job", "spec": EVALUATION}, "concurrency": "allow"}
        with self.database.write() as session:
            return Schedules(session).create(ScheduleSpec.model_validate(spec | more)).id

    def look(self, *watchers):
        with self.database.write() as session:
            for schedule in session.scalars(select(Schedule)):
                Schedules(session).look_now(schedule.id)
        for each in watchers or [self.watchers]:
            each.tick()

    def fires(self):
        with self.database.read() as session:
            return [(row.key, row.outcome) for row in session.scalars(select(ScheduleFire).order_by(ScheduleFire.id))]

    def jobs(self):
        with self.database.read() as session:
            return list(session.scalars(select(Job).where(Job.kind == "evaluation").order_by(Job.id)))

    def weights(self, name):
        """The id of a registered model's checkpoint, as it is shown."""
        with self.database.read() as session:
            model = Models(session).named(name)
            return encode_id("ckpt", Models(session).states([model])[model.id].checkpoint.id)


@pytest.fixture
def watch(sqlite_settings, database):
    return Watch(sqlite_settings, database)


def test_a_new_model_acts_once_and_what_was_there_before_never(watch):
    write_model(watch.settings.models, "old")
    watch.add()
    watch.look()
    write_model(watch.settings.models, "new")
    watch.look()
    watch.look()
    assert watch.fires() == [("old", "known"), ("new", "submitted")]
    (job,) = watch.jobs()
    assert (job.details["found"], job.spec["config"]["policy"]) == ("new", watch.weights("new"))


def test_what_is_there_counts_as_new_where_that_is_asked_for(watch):
    write_model(watch.settings.models, "old")
    watch.add(trigger={"include_existing": True})
    watch.look()
    assert watch.fires() == [("old", "submitted")]


def test_a_model_that_was_being_written_when_the_watcher_began_is_new_when_it_is_whole(watch):
    place = write_model(watch.settings.models, "late", **{"config.json": None})
    watch.add(trigger={"stable_seconds": 0})
    watch.look()
    (place / "config.json").write_bytes(b"{}")
    watch.look()
    assert watch.fires() == [("late", "submitted")]


def test_only_names_of_the_pattern_count(watch):
    watch.add(trigger={"pattern": "nightly-*", "include_existing": True})
    for name in ("nightly-1", "weekly-1", ".nightly-2", "nightly 3"):
        write_model(watch.settings.models, name)
    watch.look()
    assert watch.fires() == [("nightly-1", "submitted")]


@pytest.mark.parametrize(
    ("files", "age", "is_whole"),
    [
        ({}, 60, True),
        ({}, 5, False),
        ({"config.json": None}, 60, False),
        ({"model.safetensors": None}, 60, False),
        ({"model.safetensors": safetensors()[:-1]}, 60, False),
        ({"model.safetensors": b"\xff" * 8}, 60, False),
        ({"model.safetensors": b""}, 60, False),
        ({"model.safetensors.index.json": b'{"weight_map": {"w": "model-2.safetensors"}}'}, 60, False),
        ({"model.safetensors.index.json": b'{"weight_map": {"w": "model.safetensors"}}'}, 60, True),
        ({"model.safetensors.index.json": b"[]"}, 60, False),
        ({"manifest.json": b"{}"}, 0, True),
    ],
)
def test_a_model_is_whole_when_its_files_are_and_rest(tmp_path, files, age, is_whole):
    place = write_model(tmp_path, "m", age=age, **files)
    assert is_whole_model(place, stable_seconds=30, now=time.time()) is is_whole


def test_several_watchers_act_once(any_settings, any_database):
    watch = Watch(any_settings, any_database)
    watch.add(trigger={"include_existing": True})
    for number in range(4):
        write_model(watch.settings.models, f"m{number}")
    databases = [Database(make_engine(any_settings)) for _ in range(3)]
    for _ in range(2):
        with watch.database.write() as session:
            for schedule in session.scalars(select(Schedule)):
                Schedules(session).look_now(schedule.id)
        threads = [threading.Thread(target=Watchers(any_settings, database).tick) for database in databases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for database in databases:
        database.dispose()
    assert watch.fires() == [(f"m{number}", "submitted") for number in range(4)]
    assert len(watch.jobs()) == 4


def test_one_after_the_other_where_no_two_may_go_on_at_once(watch):
    watch.add(trigger={"include_existing": True}, concurrency="forbid")
    for name in ("a", "b"):
        write_model(watch.settings.models, name)
    watch.look()
    watch.look()
    assert watch.fires() == [("a", "submitted")]


def test_a_root_that_cannot_be_read_is_told_and_forgotten_when_it_can(watch):
    watch.add()
    watch.settings.models.parent.mkdir(exist_ok=True)
    watch.settings.models.write_text("no directory")
    watch.look()
    with watch.database.read() as session:
        assert "cannot be read" in session.scalars(select(Schedule.last_error)).one()
    watch.settings.models.unlink()
    watch.look()
    with watch.database.read() as session:
        assert session.scalars(select(Schedule.last_error)).one() == ""


# At a hub.

COMMITS = ["a" * 40, "b" * 40]


@pytest.fixture
def hub_watch(sqlite_rig, hub):
    settings = sqlite_rig.settings.model_copy(update={"hub_url": hub.url})
    watch = Watch(settings, sqlite_rig.database)
    watch.rig = sqlite_rig
    return watch


def fetched(watch, outcome=Outcome.SUCCEEDED):
    """Ends the import of the newest commit as a worker does."""
    taken = watch.rig.started()
    assert taken.kind == "import"
    row = CheckpointRow(step=0, path=f"runs/{taken.run_id}/model", manifest_sha256="0" * 64, size_bytes=1)
    models = [row] if outcome is Outcome.SUCCEEDED else []
    watch.rig.finish(taken, outcome, collected=Collected(models=models))


def test_a_new_commit_is_fetched_and_then_acts_once(hub_watch, hub):
    hub.say("acme/small", "main", COMMITS[0])
    hub_watch.add(trigger={"kind": "hub", "repository": "acme/small", "poll_seconds": 10})
    hub_watch.look()
    hub_watch.look()
    first = (f"acme/small@{COMMITS[0]}", "known")
    assert hub_watch.fires() == [first]
    hub.say("acme/small", "main", COMMITS[1])
    hub_watch.look()
    assert hub_watch.fires() == [first, (f"acme/small@{COMMITS[1]}", "fetching")]
    assert hub_watch.jobs() == []
    fetched(hub_watch)
    hub_watch.look()
    hub_watch.look()
    assert hub_watch.fires() == [first, (f"acme/small@{COMMITS[1]}", "submitted")]
    (job,) = hub_watch.jobs()
    name = f"small-{'b' * 12}"
    assert (job.details["found"], job.spec["config"]["policy"]) == (name, hub_watch.weights(name))


def test_a_commit_that_cannot_be_fetched_is_told(hub_watch, hub):
    hub.say("acme/small", "main", COMMITS[0])
    hub_watch.add(trigger={"kind": "hub", "repository": "acme/small", "poll_seconds": 10, "include_existing": True})
    hub_watch.look()
    fetched(hub_watch, Outcome.USER)
    hub_watch.look()
    assert hub_watch.fires() == [(f"acme/small@{COMMITS[0]}", "failed")]
    with hub_watch.database.read() as session:
        assert "schedule.failed" in session.scalars(select(Notification.type)).all()


def test_a_hub_that_knows_nothing_is_told_and_tried_again(hub_watch, hub):
    hub_watch.add(trigger={"kind": "hub", "repository": "acme/small", "poll_seconds": 10})
    hub_watch.look()
    with hub_watch.database.read() as session:
        assert session.scalars(select(Schedule.last_error)).one() == "the hub has no revision main of acme/small"
    hub.say("acme/small", "main", COMMITS[0])
    hub_watch.look()
    assert [outcome for _, outcome in hub_watch.fires()] == ["known"]
