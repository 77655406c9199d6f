"""Schedules: each due time fires once, catches up at most once, and is stopped by no failure."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from store.database import Database, make_engine
from store.ids import encode_id, new_id
from store.models.job import Experiment, Job
from store.models.notification import Notification
from store.models.project import DEFAULT_PROJECT_ID, Project
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.schedules import Schedules
from store.schedule_specs import ScheduleSpec
from store.schedules import fire_schedules
from tests.store.conftest import CONFIGS

JOB = {"kind": "job", "spec": {"name": "nightly", "kind": "sft", "config": CONFIGS["sft"]}}


class Clock:
    """The database's clock, which the test moves."""

    def __init__(self, start):
        self.now = start

    def __call__(self, session):
        return self.now


@pytest.fixture
def clock():
    return Clock(datetime(2026, 6, 1, 12, 0, tzinfo=UTC))


class Planner:
    """Schedules of a rig, by the test's clock."""

    def __init__(self, rig, clock):
        self.rig, self.clock = rig, clock

    def add(self, cron="* * * * *", action=JOB, *, first=None, project_id=DEFAULT_PROJECT_ID, catch_up="one", **more):
        """A schedule that is due first a minute after the clock's time, or as told."""
        trigger = {"kind": "cron", "expression": cron, "catch_up": catch_up}
        spec = ScheduleSpec.model_validate({"name": "n", "trigger": trigger, "action": action, **more})
        with self.rig.database.confined(project_id).write() as session:
            schedule = Schedules(session).create(spec)
            schedule.next_due_at = first or self.clock.now + timedelta(minutes=1)
        return schedule.id

    def pass_time(self, **span):
        self.clock.now += timedelta(**span)
        return fire_schedules(self.rig.database, self.rig.settings, self.clock)

    def fires(self, schedule_id=None):
        query = select(ScheduleFire).order_by(ScheduleFire.id)
        if schedule_id is not None:
            query = query.where(ScheduleFire.schedule_id == schedule_id)
        with self.rig.database.read() as session:
            return list(session.scalars(query))

    def count(self, table):
        with self.rig.database.read() as session:
            return session.execute(select(func.count()).select_from(table)).scalar_one()


@pytest.fixture
def planner(rig, clock):
    return Planner(rig, clock)


@pytest.fixture
def sqlite_planner(sqlite_rig, clock):
    return Planner(sqlite_rig, clock)


def test_two_tickers_at_once_fire_each_of_200_due_times_once(planner):
    schedule_id = planner.add(concurrency="allow")
    url = planner.rig.database.engine.url.render_as_string(hide_password=False)
    settings = planner.rig.settings.model_copy(update={"database_url": url})
    databases = [Database(make_engine(settings)) for _ in range(2)]
    barrier = threading.Barrier(
        2, action=lambda: setattr(planner.clock, "now", planner.clock.now + timedelta(minutes=1))
    )
    errors = []

    def tick(database):
        try:
            for _ in range(200):
                barrier.wait(30)
                fire_schedules(database, planner.rig.settings, planner.clock)
        except Exception as error:
            errors.append(error)
            barrier.abort()

    start = planner.clock.now
    threads = [threading.Thread(target=tick, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for database in databases:
        database.dispose()
    assert errors == []
    fires = planner.fires(schedule_id)
    assert [fire.due_at for fire in fires] == [start + timedelta(minutes=n) for n in range(1, 201)]
    assert {fire.outcome for fire in fires} == {"submitted"}
    assert planner.count(Job) == 200
    assert len({fire.objects[0] for fire in fires}) == 200


def test_a_fire_submits_and_says_what(planner):
    schedule_id = planner.add()
    assert planner.pass_time(seconds=59) == 0
    assert planner.pass_time(seconds=1) == 1
    assert planner.pass_time(seconds=1) == 0
    (fire,) = planner.fires(schedule_id)
    with planner.rig.database.read() as session:
        job = session.scalars(select(Job)).one()
        schedule = session.get_one(Schedule, schedule_id)
    assert fire.objects == [encode_id("job", job.id)]
    assert (fire.cause, fire.outcome, job.name) == ("due", "submitted", "nightly")
    assert schedule.next_due_at == planner.clock.now.replace(second=0) + timedelta(minutes=1)


def test_after_three_hours_away_the_newest_missed_time_alone_is_made_up_for(sqlite_planner):
    planner = sqlite_planner
    one, none = planner.add(), planner.add(catch_up="none")
    hourly, at_once = (
        planner.add("0 * * * *", first=planner.clock.now + timedelta(hours=1)),
        planner.add("0 * * * *", first=planner.clock.now + timedelta(hours=1), catch_up="none"),
    )
    planner.pass_time(hours=3, minutes=1)
    (fire,) = planner.fires(one)
    assert fire.due_at == planner.clock.now
    assert "were missed" in fire.message
    assert [fire.outcome for fire in planner.fires(none)] == ["submitted"], "the newest is not late"
    assert [fire.due_at.hour for fire in planner.fires(hourly)] == [15]
    assert [fire.due_at.hour for fire in planner.fires(at_once)] == [15]
    planner.pass_time(hours=1, minutes=30)
    assert [fire.outcome for fire in planner.fires(at_once)] == ["submitted", "skipped"]
    assert "missed" in planner.fires(at_once)[1].message
    planner.pass_time(minutes=29)
    planner.pass_time(seconds=1)
    assert len(planner.fires(at_once)) == 3


def test_a_fire_that_fails_is_told_and_stops_neither_later_ones_nor_others(planner):
    config = {"policy": "model:gone", "prompts": {"name": "sums"}}
    broken = planner.add(action={"kind": "job", "spec": JOB["spec"] | {"config": config}})
    nonsense = planner.add(action={"kind": "job", "spec": {"name": "x"}})
    fine = planner.add(concurrency="allow")
    planner.pass_time(minutes=1)
    planner.pass_time(minutes=1)
    assert [fire.outcome for fire in planner.fires(broken)] == ["failed", "failed"]
    assert planner.fires(broken)[0].message.startswith("/config/policy: there is no imported model")
    assert [fire.outcome for fire in planner.fires(nonsense)] == ["failed", "failed"]
    assert [fire.outcome for fire in planner.fires(fine)] == ["submitted", "submitted"]
    assert planner.count(Job) == 2
    with planner.rig.database.read() as session:
        told = session.scalars(select(Notification).order_by(Notification.id)).all()
    assert [row.type for row in told] == ["schedule.failed"] * 4
    assert encode_id("sch", broken) in {row.object_id for row in told}


def test_an_error_of_ours_is_recorded_and_stops_nobody(sqlite_planner, monkeypatch):
    planner = sqlite_planner
    planner.add()
    planner.add(action={"kind": "experiment", "document": {"name": "e", "jobs": [JOB["spec"]]}})

    def broken(*args, **more):
        raise RuntimeError("oh")

    monkeypatch.setattr("store.actions.submit_job", broken)
    planner.pass_time(minutes=1)
    assert [fire.outcome for fire in planner.fires()] == ["failed", "submitted"]
    assert "an error of the platform" in planner.fires()[0].message
    assert planner.count(Experiment) == 1


def test_while_what_the_last_fire_began_goes_on_the_next_is_skipped(planner):
    schedule_id = planner.add()
    planner.pass_time(minutes=1)
    planner.pass_time(minutes=1)
    first, second = planner.fires(schedule_id)
    assert (second.outcome, first.objects[0] in second.message) == ("skipped", True)
    planner.pass_time(minutes=1)
    planner.rig.finish(planner.rig.started())
    planner.pass_time(minutes=1)
    assert [fire.outcome for fire in planner.fires(schedule_id)] == ["submitted", "skipped", "skipped", "submitted"]


def test_an_experiment_of_a_matrix_is_expanded_and_watched_to_its_end(sqlite_planner):
    planner = sqlite_planner
    jobs = [JOB["spec"] | {"name": "a-{x}", "each": ["x"], "config": CONFIGS["sft"] | {"steps": "{x}"}}]
    document = {"name": "sweep", "axes": {"x": [1, 2]}, "jobs": jobs}
    schedule_id = planner.add(action={"kind": "experiment", "document": document})
    planner.pass_time(minutes=1)
    (fire,) = planner.fires(schedule_id)
    assert fire.outcome == "submitted", fire.message
    assert planner.count(Job) == 2
    planner.pass_time(minutes=1)
    assert planner.fires(schedule_id)[1].outcome == "skipped"
    for _ in range(2):
        planner.rig.finish(planner.rig.started())
    planner.pass_time(minutes=1)
    assert planner.fires(schedule_id)[2].outcome == "submitted"


def test_a_suspended_schedule_rests_and_makes_up_for_nothing_when_it_is_resumed(sqlite_planner):
    planner = sqlite_planner
    schedule_id = planner.add()
    with planner.rig.database.write() as session:
        assert Schedules(session).change(schedule_id, {"is_suspended": True}).next_due_at is None
    assert planner.pass_time(hours=1) == 0
    with planner.rig.database.write() as session:
        due = Schedules(session).change(schedule_id, {"is_suspended": False}).next_due_at
    assert due > datetime.now(UTC)


def test_what_a_schedule_submits_belongs_to_its_project(planner):
    other = Project(id=new_id(), name="other")
    with planner.rig.database.write() as session:
        session.add(other)
    planner.add(project_id=other.id)
    planner.pass_time(minutes=1)
    with planner.rig.database.read() as session:
        assert session.scalars(select(Job.project_id)).one() == other.id
        assert session.scalars(select(Schedule.project_id)).one() == other.id


def test_the_last_fire_of_each_schedule_is_found(planner):
    some = [planner.add(concurrency="allow") for _ in range(3)]
    planner.pass_time(minutes=1)
    planner.pass_time(minutes=1)
    with planner.rig.database.read() as session:
        last = Schedules(session).last_fires(some[:2])
    assert {key: fire.due_at for key, fire in last.items()} == dict.fromkeys(some[:2], planner.clock.now)
