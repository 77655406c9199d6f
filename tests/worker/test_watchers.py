"""Watchers: each new model acts once, and only when it is whole."""

import json
import os
import struct
import threading
import time

import pytest
from sqlalchemy import select

from store.database import Database, make_engine
from store.models.job import Job
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.schedules import Schedules
from store.schedule_specs import ScheduleSpec
from worker.watchers import Watchers, is_whole_model

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
            return [(job.spec["config"]["policy"], job.details["found"]) for job in session.scalars(select(Job))]


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
    assert watch.fires() == [("model:old", "known"), ("model:new", "submitted")]
    assert watch.jobs() == [("model:new", "new")]


def test_what_is_there_counts_as_new_where_that_is_asked_for(watch):
    write_model(watch.settings.models, "old")
    watch.add(trigger={"include_existing": True})
    watch.look()
    assert watch.fires() == [("model:old", "submitted")]


def test_a_model_that_was_being_written_when_the_watcher_began_is_new_when_it_is_whole(watch):
    place = write_model(watch.settings.models, "late", **{"config.json": None})
    watch.add(trigger={"stable_seconds": 0})
    watch.look()
    (place / "config.json").write_bytes(b"{}")
    watch.look()
    assert watch.fires() == [("model:late", "submitted")]


def test_only_names_of_the_pattern_count(watch):
    watch.add(trigger={"pattern": "nightly-*", "include_existing": True})
    for name in ("nightly-1", "weekly-1", ".nightly-2", "nightly 3"):
        write_model(watch.settings.models, name)
    watch.look()
    assert watch.fires() == [("model:nightly-1", "submitted")]


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
    assert watch.fires() == [(f"model:m{number}", "submitted") for number in range(4)]
    assert len(watch.jobs()) == 4


def test_one_after_the_other_where_no_two_may_go_on_at_once(watch):
    watch.add(trigger={"include_existing": True}, concurrency="forbid")
    for name in ("a", "b"):
        write_model(watch.settings.models, name)
    watch.look()
    watch.look()
    assert watch.fires() == [("model:a", "submitted")]


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
