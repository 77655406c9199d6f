"""The disk is told about once, garbage is collected by one of several processes, a full disk lets queued runs wait."""

import logging
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from store.database import Database
from store.disk import disk_of
from store.models.base import utc_now
from store.models.notification import Notification
from store.models.registry import Chore, Removal
from store.settings import Settings
from tests.worker.conftest import Platform
from worker.housekeeping import Housekeeper, tell_disk

FULL = {"disk_warning_percent": 1e-9, "disk_full_percent": 1e-9}
ROOMY = {"disk_warning_percent": 100.0, "disk_full_percent": 100.0}


def test_a_low_disk_is_told_once_each_time(
    database: Database, sqlite_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    low, ok = (disk_of(sqlite_settings.model_copy(update=change)) for change in (FULL, ROOMY))
    told = []
    with caplog.at_level(logging.WARNING, "worker.housekeeping"):
        for disk in (ok, low, low, ok, low):
            with database.write() as session:
                told.append(tell_disk(session, disk))
    assert told == [False, True, False, False, True]
    assert len(caplog.records) == 2
    with database.read() as session:
        notes = list(session.scalars(select(Notification)))
    assert [note.type for note in notes] == ["disk.low"] * 2
    assert notes[0].data["free_bytes"] == low.free_bytes


def test_one_of_several_collects_once_an_hour(any_database: Database, any_settings: Settings) -> None:
    keepers = [Housekeeper(any_settings, any_database) for _ in range(2)]

    def note() -> None:
        with any_database.write() as session:
            session.add(Removal(path="runs/run_x", reason="x", created_at=utc_now()))

    def num_open() -> int:
        with any_database.read() as session:
            return session.query(Removal).where(Removal.removed_at.is_(None)).count()

    note()
    keepers[0].tick()
    assert num_open() == 0
    note()
    for keeper in keepers:
        keeper.tick()
    assert num_open() == 1
    with any_database.write() as session:
        session.execute(update(Chore).values(started_at=utc_now() - timedelta(hours=2)))
    keepers[1].tick()
    assert num_open() == 0


def test_queued_runs_wait_while_the_disk_is_full(platform: Platform) -> None:
    run_id = platform.submit()
    supervisor = platform.supervisor()
    supervisor.settings = platform.settings.model_copy(update=FULL)
    assert supervisor.take(["lco.cpu"]) is None
    assert platform.state(run_id) == "queued"
    supervisor.settings = platform.settings
    attempt = supervisor.take(["lco.cpu"])
    assert attempt is not None
    supervisor.supervise(attempt)
    assert platform.state(run_id) == "succeeded"
