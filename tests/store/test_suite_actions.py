"""Schedules that ask suites for verdicts, and what is told of verdicts."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from store.ids import encode_id
from store.models.base import utc_now
from store.models.notification import Notification
from store.models.project import DEFAULT_PROJECT_ID
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.schedules import Schedules
from store.schedule_specs import ScheduleSpec
from store.schedules import fire_schedules
from store.verdicts import advance
from tests.store.laboratory import BAD, GOOD, Laboratory, answers


@pytest.fixture
def lab(rig):
    return Laboratory(rig)


@pytest.fixture
def champion(lab):
    checkpoint_id = lab.checkpoint()
    lab.name("champion", checkpoint_id)
    return checkpoint_id


def schedule(lab, suite, checkpoints, **more):
    """A schedule that is due now; its id."""
    action = {"kind": "suite", "suite": encode_id("suite", suite.id), "checkpoints": checkpoints}
    trigger = {"kind": "cron", "expression": "* * * * *"}
    spec = ScheduleSpec.model_validate({"name": "n", "trigger": trigger, "action": action, **more})
    with lab.database.confined(DEFAULT_PROJECT_ID).write() as session:
        return Schedules(session).create(spec).id


def make_due(lab):
    with lab.database.write() as session:
        session.execute(update(Schedule).values(next_due_at=utc_now() - timedelta(seconds=61)))


def fires(lab):
    with lab.database.read() as session:
        return list(session.scalars(select(ScheduleFire).order_by(ScheduleFire.id)))


def told(lab):
    with lab.database.read() as session:
        return list(session.scalars(select(Notification).order_by(Notification.created_at, Notification.id)))


def test_several_schedulers_ask_for_the_verdict_on_an_alias_once(lab, champion):
    candidate = lab.checkpoint()
    lab.name("candidate", candidate)
    schedule_id = schedule(lab, lab.suite(), {"alias": "candidate"})
    make_due(lab)
    threads = [threading.Thread(target=lambda: fire_schedules(lab.database, lab.rig.settings)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (verdict,) = lab.verdicts()
    (fired,) = fires(lab)
    assert (verdict.checkpoint_id, verdict.cause) == (candidate, f"schedule {encode_id('sch', schedule_id)}")
    assert (fired.outcome, fired.objects) == ("submitted", [encode_id("vrd", verdict.id)])


def test_every_verdict_is_told_with_its_numbers_once(lab, champion):
    suite, bad = lab.suite(), lab.checkpoint()
    verdict = lab.request(suite, bad)
    lab.evaluate({champion: answers(GOOD), bad: answers(BAD)})
    advance(lab.database)
    advance(lab.database)
    (one,) = [each for each in told(lab) if each.type.startswith("verdict.")]
    assert (one.type, one.object_id) == ("verdict.regressed", encode_id("vrd", verdict.id))
    assert one.data["suite_name"] == "nightly"
    assert one.data["gates"][0]["value"] == 0.3
