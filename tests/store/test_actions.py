"""Schedules that ask a suite for verdicts, and what is told of these."""

import pytest
from sqlalchemy import select

from store.actions import check_suite
from store.errors import Invalid
from store.ids import decode_id, encode_id
from store.models.notification import Notification
from store.models.suite import Verdict
from store.repositories.aliases import Aliases
from store.repositories.schedules import Schedules
from store.schedule_specs import ACTION, ScheduleSpec
from store.schedules import fire
from store.verdicts import advance
from tests.store.laboratory import BAD, GOOD, Laboratory, answers


@pytest.fixture
def lab(rig):
    return Laboratory(rig)


@pytest.fixture
def champion(lab):
    """The baseline, under its name."""
    checkpoint_id = lab.checkpoint()
    lab.name("champion", checkpoint_id)
    return checkpoint_id


def fired(lab, suite, checkpoints, **more):
    """The fire of a new schedule for the suite."""
    action = {"kind": "suite", "suite": encode_id("suite", suite.id), "checkpoints": checkpoints}
    trigger = {"kind": "cron", "expression": "0 0 * * *"}
    with lab.database.write() as session:
        spec = ScheduleSpec.model_validate({"name": "nightly", "trigger": trigger, "action": action, **more})
        schedule = Schedules(session).create(spec)
        return schedule.id, fire(session, lab.rig.settings, schedule, "1", "manual")


def judged(lab, found):
    """The checkpoints of a fire's verdicts."""
    with lab.database.read() as session:
        identifiers = [decode_id("vrd", name) for name in found.objects]
        return [session.get_one(Verdict, identifier).checkpoint_id for identifier in identifiers]


def told(lab):
    with lab.database.read() as session:
        rows = session.scalars(select(Notification).order_by(Notification.id))
        return [(row.type, row.data) for row in rows if row.type.startswith("verdict.")]


def test_the_checkpoint_of_an_alias_is_judged_as_it_is_when_the_schedule_fires(lab, champion):
    suite, first, second = lab.suite(), lab.checkpoint(), lab.checkpoint()
    lab.name("candidate", first)
    lab.name("candidate", second)
    _, found = fired(lab, suite, {"alias": "candidate"})
    assert (found.outcome, judged(lab, found)) == ("submitted", [second])


def test_the_newest_models_of_a_job_are_judged(lab, champion):
    suite = lab.suite()
    mine = [lab.checkpoint(name="mine", metadata={"team": "blue"}) for _ in range(3)]
    lab.checkpoint(name="other")
    _, found = fired(lab, suite, {"newest": 2, "job": "mine", "metadata": {"team": "blue"}})
    assert judged(lab, found) == [mine[1], mine[2]], "the older one first"
    _, found = fired(lab, suite, {"newest": 2, "metadata": {"team": "red"}})
    assert (found.outcome, "no published model" in found.message) == ("failed", True)


def test_an_alias_that_means_nothing_fails_the_fire(lab, champion):
    _, found = fired(lab, lab.suite(), {"alias": "nobody"})
    assert (found.outcome, found.message) == ("failed", "there is no alias nobody")


def test_an_open_verdict_holds_up_the_next_fire_and_its_end_is_told(lab, champion):
    suite, bad = lab.suite(), lab.checkpoint()
    lab.name("candidate", bad)
    schedule_id, first = fired(lab, suite, {"alias": "candidate"})
    with lab.database.write() as session:
        again = fire(session, lab.rig.settings, Schedules(session).locked(schedule_id), "2", "manual")
        assert (again.outcome, first.objects[0] in again.message) == ("skipped", True)
    lab.evaluate({champion: answers(GOOD), bad: answers(BAD)})
    assert told(lab) == []
    advance(lab.database)
    advance(lab.database)
    ((event, data),) = told(lab)
    assert event == "verdict.regressed"
    assert data["checkpoint_id"] == encode_id("ckpt", bad)
    assert data["suite_id"] == encode_id("suite", suite.id)
    with lab.database.write() as session:
        third = fire(session, lab.rig.settings, Schedules(session).locked(schedule_id), "3", "manual")
        assert (third.outcome, third.objects) == ("submitted", first.objects), "it is not judged again"


def test_a_verdict_that_cannot_be_asked_for_is_told_as_an_error(lab, champion):
    suite, one = lab.suite(), lab.checkpoint()
    with lab.database.write() as session:
        Aliases(session).remove("champion")
    lab.request(suite, one)
    assert [event for event, _ in told(lab)] == ["verdict.error"]


def test_a_suite_that_is_not_there_is_refused(lab, champion):
    action = {"kind": "suite", "suite": "suite_" + "0" * 26, "checkpoints": {"newest": 1}}
    with pytest.raises(Invalid) as refusal, lab.database.read() as session:
        check_suite(session, ACTION.validate_python(action))
    assert refusal.value.pointer == "/action/suite"
