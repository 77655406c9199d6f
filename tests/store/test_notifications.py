"""What is told of jobs and experiments, and when."""

import pytest
from sqlalchemy import select

from store.control import cancel_job, pause_job
from store.ids import encode_id
from store.models.notification import Notification
from store.models.project import DEFAULT_PROJECT_ID
from store.states import Outcome
from tests.store.test_races import together


@pytest.fixture
def told(rig):
    def read():
        with rig.database.read() as session:
            rows = session.scalars(select(Notification).order_by(Notification.id)).all()
        assert {row.project_id for row in rows} <= {DEFAULT_PROJECT_ID}
        return [(row.type, row.object_id, row.data["status"]) for row in rows]

    return read


@pytest.mark.parametrize(("outcome", "status"), [(Outcome.SUCCEEDED, "succeeded"), (Outcome.USER, "failed")])
def test_a_job_that_ends_is_told_once_all_its_runs_have(rig, told, outcome, status):
    job = rig.submit("sft", seeds=[0, 1])
    rig.finish(rig.started())
    assert told() == []
    rig.finish(rig.started(), outcome)
    assert told() == [(f"job.{status}", encode_id("job", job.id), status)]


def test_a_job_that_is_paused_or_cancelled_is_told(rig, told):
    job = rig.submit()
    for act in (pause_job, cancel_job):
        with rig.database.write() as session:
            act(session, job.id)
    name = encode_id("job", job.id)
    assert told() == [("job.paused", name, "paused"), ("job.cancelled", name, "cancelled")]


def test_an_experiment_is_told_once_when_its_last_jobs_end_together(rig, told):
    names = [f"job-{number}" for number in range(4)]
    experiment = rig.submit_experiment(*[rig.spec("sft", name=name) for name in names])
    claims = [rig.started() for _ in names]
    together([lambda taken=taken: rig.finish(taken) for taken in claims])
    types = [event for event, _, _ in told()]
    assert sorted(types) == ["experiment.succeeded", *["job.succeeded"] * 4]
    assert ("experiment.succeeded", encode_id("exp", experiment.id), "succeeded") in told()


def test_an_experiment_of_which_one_job_fails_has_failed(rig, told):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.started(), Outcome.USER)
    assert [event for event, _, _ in told()] == ["job.failed", "job.cancelled", "experiment.failed"]


def test_what_is_submitted_and_runs_is_not_told(rig, told):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.started()
    assert told() == []
