from sqlalchemy import update

from store.control import pause, resume
from store.models.run import Run
from store.queue import report_progress
from store.reaper import promote_waiting
from store.repositories.runs import Runs
from store.states import Outcome, RunState


def fail(rig, message="signal 11", step=None, outcome=Outcome.INFRA, **fields):
    """Lets the next attempt fail after some progress, and its back-off pass."""
    taken = rig.started()
    if step is not None:
        with rig.database.write() as session:
            report_progress(session, taken, step, 100)
    decision = rig.finish(taken, outcome, message, **fields)
    with rig.database.write() as session:
        session.execute(update(Run).where(Run.state == RunState.RETRY_WAIT).values(available_at=Run.created_at))
        promote_waiting(session)
    return decision.state


def test_success_unblocks_those_that_waited_for_it_alone(rig):
    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("pairs"), rig.spec("dpo"))
    jobs = rig.jobs_of(experiment)
    rig.finish(rig.started())
    assert rig.runs(jobs["pairs"].id)[0].state == "queued"
    assert (rig.runs(jobs["dpo"].id)[0].state, rig.runs(jobs["dpo"].id)[0].blocked_on) == ("blocked", 1)
    rig.finish(rig.started())
    assert rig.take().job_id == jobs["dpo"].id


def test_a_run_is_not_unblocked_by_another_seed(rig):
    experiment = rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("evaluation", seeds=[0, 1]))
    taken = rig.started()
    rig.finish(taken)
    states = {run.seed: run.state for run in rig.runs(rig.jobs_of(experiment)["evaluation"].id)}
    assert states == {taken.seed: "queued", 1 - taken.seed: "blocked"}


def test_failure_cancels_all_that_depends_on_it_and_says_why(rig):
    experiment = rig.submit_experiment(
        rig.spec("sft"), rig.spec("pairs"), rig.spec("dpo"), rig.spec("sft", name="last", after=["dpo"])
    )
    jobs = rig.jobs_of(experiment)
    rig.finish(rig.started(), Outcome.USER, "no such column", error_code="bad_data")
    failed = rig.runs(jobs["sft"].id)[0]
    assert (failed.state, failed.error_code, failed.error_message) == ("failed", "bad_data", "no such column")
    for name, needed in (("pairs", "sft"), ("dpo", "sft"), ("last", "dpo")):
        run = rig.runs(jobs[name].id)[0]
        assert (run.state, rig.job(jobs[name].id).status) == ("cancelled", "cancelled"), name
        assert f"depends on {needed} (seed 0" in run.status_reason
    assert rig.claim() is None


def test_a_paused_dependent_waits_on_after_its_dependency_succeeded(rig):
    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    waiting = rig.runs(rig.jobs_of(experiment)["evaluation"].id)[0].id
    with rig.database.write() as session:
        pause(session, waiting)
    rig.finish(rig.started())
    assert (rig.run(waiting).state, rig.run(waiting).blocked_on) == ("paused", 0)


def test_a_failed_attempt_backs_off_before_the_next(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken, Outcome.INFRA, "signal 9", resumed_from_step=3)
    run = rig.run(taken.run_id)
    assert (run.state, run.infra_failures, run.error_message) == ("retry_wait", 1, "signal 9")
    assert rig.claim() is None
    with rig.database.read() as session:
        (attempt,) = Runs(session).attempts(run.id)
    assert (attempt.outcome, attempt.exit_code, attempt.resumed_from_step) == ("infra", 0, 3)
    assert attempt.ended_at is not None


def test_the_next_attempt_knows_the_directories_of_those_before(rig):
    rig.submit()
    fail(rig, "one")
    fail(rig, "two")
    taken = rig.take()
    assert (taken.attempt, taken.earlier_attempts) == (3, (2, 1))


def test_the_same_failure_three_times_is_quarantined(rig):
    rig.submit()
    assert [fail(rig) for _ in range(3)] == ["retry_wait", "retry_wait", "quarantined"]


def test_progress_between_failures_is_no_sign_of_poison(sqlite_rig):
    sqlite_rig.submit()
    assert [fail(sqlite_rig, step=step) for step in (10, 20, 30, 30, 30)][-2:] == ["retry_wait", "quarantined"]


def test_other_messages_or_outcomes_between_failures_are_no_sign_of_poison(sqlite_rig):
    sqlite_rig.submit()
    assert {fail(sqlite_rig, message) for message in ("a", "a", "b", "a", "a")} == {"retry_wait"}
    sqlite_rig.submit("sft", name="other", priority=1)
    outcomes = (Outcome.INFRA, Outcome.INFRA, Outcome.OOM, Outcome.INFRA)
    assert {fail(sqlite_rig, outcome=outcome) for outcome in outcomes} == {"retry_wait"}


def test_the_budget_of_infrastructure_failures_is_the_callers(sqlite_rig):
    sqlite_rig.submit()
    states = [fail(sqlite_rig, message, max_infra_failures=1) for message in ("a", "b")]
    assert states == ["retry_wait", "failed"]


def test_running_out_of_memory_twice_fails(rig):
    rig.submit()
    assert [fail(rig, outcome=Outcome.OOM) for _ in range(2)] == ["retry_wait", "failed"]


def test_a_drained_run_goes_on_elsewhere_at_once(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken, Outcome.STOPPED)
    again = rig.take()
    assert (again.run_id, again.attempt, rig.run(again.run_id).infra_failures) == (taken.run_id, 2, 0)


def test_an_ended_attempt_holds_no_worker(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken)
    run = rig.run(taken.run_id)
    assert (run.worker_id, run.state, run.output_attempt) == (None, "succeeded", 1)
    assert run.finished_at is not None


def test_a_message_as_long_as_a_log_is_cut(sqlite_rig):
    sqlite_rig.submit()
    taken = sqlite_rig.started()
    sqlite_rig.finish(taken, Outcome.USER, "x" * 100_000)
    assert len(sqlite_rig.run(taken.run_id).error_message) == 4000


def test_a_run_that_paused_itself_goes_on_when_it_is_resumed_and_not_before(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken, Outcome.PAUSED, "collapse watch at step 9")
    run = rig.run(taken.run_id)
    assert (run.state, run.desired, run.status_reason) == ("paused", "pause", "paused by its collapse watch")
    assert (run.infra_failures, run.error_message) == (0, "")
    assert rig.claim() is None
    with rig.database.write() as session:
        resume(session, taken.run_id)
    assert rig.take().attempt == 2


def test_a_collapsed_run_has_failed_with_its_message(rig):
    rig.submit()
    taken = rig.started()
    rig.finish(taken, Outcome.COLLAPSED, "the mean reward fell", error_code="Collapsed")
    run = rig.run(taken.run_id)
    assert (run.state, run.error_code, run.error_message) == ("failed", "Collapsed", "the mean reward fell")
