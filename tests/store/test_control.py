import pytest

from store import control
from store.errors import Conflict, NotFound
from store.ids import new_id
from store.queue import guard
from store.repositories.jobs import Experiments
from store.states import Desired, Outcome


def ask(rig, verb, identifier):
    with rig.database.write() as session:
        return getattr(control, verb)(session, identifier)


@pytest.fixture
def queued(rig):
    """A queued run."""
    (run,) = rig.runs(rig.submit().id)
    return run


def test_a_run_that_nobody_holds_is_cancelled_at_once(rig, queued):
    run = ask(rig, "cancel", queued.id)
    assert (run.state, run.desired, rig.job(run.job_id).status) == ("cancelled", "cancel", "cancelled")
    assert run.finished_at is not None
    assert rig.claim() is None


def test_cancelling_a_held_run_asks_its_worker(rig, queued):
    taken = rig.started()
    assert ask(rig, "cancel", queued.id).state == "stopping"
    with rig.database.write() as session:
        assert guard(session, taken) is Desired.CANCEL
    rig.finish(taken, Outcome.STOPPED)
    assert (rig.run(queued.id).state, rig.run(queued.id).status_reason) == ("cancelled", "cancelled on request")


def test_a_paused_run_resumes_where_it_stopped(rig, queued):
    taken = rig.started()
    assert ask(rig, "pause", queued.id).state == "stopping"
    rig.finish(taken, Outcome.STOPPED)
    assert (rig.run(queued.id).state, rig.job(queued.job_id).status) == ("paused", "paused")
    assert rig.claim() is None
    assert ask(rig, "resume", queued.id).state == "queued"
    assert rig.take().earlier_attempts == (1,)


def test_a_run_resumed_while_it_stops_goes_on_once_it_has_stopped(rig, queued):
    taken = rig.started()
    ask(rig, "pause", queued.id)
    assert (ask(rig, "resume", queued.id).state, rig.run(queued.id).desired) == ("stopping", "run")
    rig.finish(taken, Outcome.STOPPED)
    assert rig.take().run_id == queued.id


def test_a_blocked_run_that_was_paused_waits_again_after_its_resume(sqlite_rig):
    rig = sqlite_rig
    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    (waiting,) = rig.runs(rig.jobs_of(experiment)["evaluation"].id)
    assert ask(rig, "pause", waiting.id).state == "paused"
    assert ask(rig, "resume", waiting.id).state == "blocked"
    rig.finish(rig.started())
    assert rig.take().run_id == waiting.id


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_asking_again_changes_nothing(sqlite_rig, verb):
    (run,) = sqlite_rig.runs(sqlite_rig.submit().id)
    first = ask(sqlite_rig, verb, run.id)
    version, job_version = first.version, sqlite_rig.job(run.job_id).version
    assert ask(sqlite_rig, verb, run.id).version == version
    assert sqlite_rig.job(run.job_id).version == job_version


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_a_run_that_has_ended_refuses(sqlite_rig, verb):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    sqlite_rig.finish(taken)
    with pytest.raises(Conflict) as refused:
        ask(sqlite_rig, verb, taken.run_id)
    assert (refused.value.code, refused.value.current) == ("invalid_state", "succeeded")
    with pytest.raises(Conflict) as refused:
        ask(sqlite_rig, f"{verb}_job", taken.job_id)
    assert (refused.value.code, refused.value.current) == ("invalid_state", "succeeded")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_cancel_is_not_taken_back(sqlite_rig, verb):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    ask(sqlite_rig, "cancel", taken.run_id)
    with pytest.raises(Conflict):
        ask(sqlite_rig, verb, taken.run_id)


def test_a_cancel_overtakes_a_pause(sqlite_rig):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    ask(sqlite_rig, "pause", taken.run_id)
    ask(sqlite_rig, "cancel", taken.run_id)
    assert sqlite_rig.finish(taken, Outcome.STOPPED).state == "cancelled"


def test_retry_ends_a_back_off(rig, queued):
    rig.finish(rig.started(), Outcome.INFRA, "signal 9")
    assert rig.claim() is None
    assert ask(rig, "retry", queued.id).state == "queued"
    assert rig.take().attempt == 2


def test_retrying_a_job_hurries_the_runs_that_wait(sqlite_rig):
    job = sqlite_rig.submit("sft", seeds=[0, 1])
    sqlite_rig.finish(sqlite_rig.started(), Outcome.INFRA, "signal 9")
    ask(sqlite_rig, "retry_job", job.id)
    assert [run.state for run in sqlite_rig.runs(job.id)] == ["queued", "queued"]


def test_a_job_is_paused_resumed_and_cancelled_with_all_its_runs(rig):
    job = rig.submit("sft", seeds=[0, 1, 2])
    taken = rig.started()
    rig.finish(rig.started())
    assert ask(rig, "pause_job", job.id).status == "running"
    assert sorted(run.state for run in rig.runs(job.id)) == ["paused", "stopping", "succeeded"]
    rig.finish(taken, Outcome.STOPPED)
    assert rig.job(job.id).status == "paused"
    assert ask(rig, "resume_job", job.id).status == "running"
    assert ask(rig, "cancel_job", job.id).status == "cancelled"
    assert sorted(run.state for run in rig.runs(job.id)) == ["cancelled", "cancelled", "succeeded"]


def test_cancelling_an_experiment_ends_all_that_waits(rig):
    experiment = rig.submit_experiment(
        rig.spec("sft", seeds=[0, 1]), rig.spec("pairs", seeds=[0, 1]), rig.spec("dpo", seeds=[0, 1])
    )
    taken = rig.started()
    ask(rig, "cancel_experiment", experiment.id)
    rig.finish(taken, Outcome.STOPPED)
    assert {job.status for job in rig.jobs_of(experiment).values()} == {"cancelled"}
    with rig.database.read() as session:
        assert Experiments(session).statuses([experiment.id]) == {experiment.id: "cancelled"}
        assert Experiments(session).run_states([experiment.id]) == {experiment.id: {"cancelled": 6}}


def test_an_experiment_is_paused_and_resumed(sqlite_rig):
    rig = sqlite_rig
    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    ask(rig, "pause_experiment", experiment.id)
    assert {job.status for job in rig.jobs_of(experiment).values()} == {"paused"}
    ask(rig, "resume_experiment", experiment.id)
    rig.finish(rig.started())
    rig.finish(rig.started())
    assert {job.status for job in rig.jobs_of(experiment).values()} == {"succeeded"}
    with pytest.raises(Conflict):
        ask(rig, "pause_experiment", experiment.id)


@pytest.mark.parametrize(
    "verb",
    [f"{verb}{of}" for verb in ("cancel", "pause", "resume") for of in ("", "_job", "_experiment")]
    + ["retry", "retry_job"],
)
def test_what_does_not_exist_is_not_found(sqlite_rig, verb):
    with pytest.raises(NotFound):
        ask(sqlite_rig, verb, new_id())
