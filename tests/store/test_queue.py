import math

import pytest

from store.control import cancel, pause
from store.errors import NotYours
from store.ids import new_id
from store.queue import (
    add_event,
    append_log,
    append_metrics,
    finish,
    guard,
    record_checkpoint,
    report_progress,
    start,
)
from store.repositories.metrics import Metrics
from store.repositories.records import Checkpoints, Events, Logs, Results
from store.repositories.runs import Runs
from store.rows import CheckpointRow, Collected, CompletionRow, ResultRow
from store.states import Desired, Outcome, RunState

STATE = CheckpointRow(kind="state", step=50, path="runs/r/1/x", manifest_sha256="0" * 64, size_bytes=3)


def result(eval_seed: int | None = 0, value: float | None = 0.5) -> ResultRow:
    return ResultRow(
        benchmark="sums",
        metric="pass@1",
        decoding="greedy" if eval_seed is None else "t1.0",
        eval_seed=eval_seed,
        value=value,
        num_examples=10,
    )


def completion(number: int = 0, text: str = "c") -> CompletionRow:
    return CompletionRow(
        benchmark="sums",
        example_id=str(number),
        decoding="t1.0",
        eval_seed=0,
        prompt="p",
        completion=text,
        reference="r",
        extracted=None,
        verdict="wrong",
        correct=False,
        truncated=False,
    )


def test_a_claim_takes_the_next_attempt_and_tells_all_that_a_worker_needs(rig):
    job = rig.submit("sft", seeds=[3])
    taken = rig.take(dispatcher="celery", host="there")
    assert (taken.job_id, taken.attempt, taken.kind, taken.seed, taken.method) == (job.id, 1, "sft", 3, "sft")
    assert (taken.spec, taken.gpus, taken.earlier_attempts) == (rig.job(job.id).spec, (), ())
    run = rig.run(taken.run_id)
    assert (run.state, run.attempt, run.worker_id) == ("leased", 1, rig.worker_id)
    with rig.database.read() as session:
        (attempt,) = Runs(session).attempts(run.id)
    assert (attempt.n, attempt.dispatcher, attempt.host, attempt.outcome) == (1, "celery", "there", None)


def test_second_claim_gets_nothing(rig):
    rig.submit()
    rig.take()
    assert rig.claim() is None


def test_higher_priority_goes_first_then_whoever_waits_longest(rig):
    jobs = [rig.submit("sft", name=f"job-{n}", priority=priority).id for n, priority in enumerate([0, 0, 1, -1])]
    assert [rig.take().job_id for _ in jobs] == [jobs[2], jobs[0], jobs[1], jobs[3]]


def test_a_run_with_labels_goes_only_to_a_worker_that_offers_all_of_them(rig):
    rig.submit("sft", resources={"labels": ["fast", "a100"]})
    assert rig.claim() is None
    assert rig.claim(labels=["fast"]) is None
    assert rig.claim(labels=["a100", "fast", "more"]) is not None


def test_runs_that_a_worker_cannot_serve_do_not_hide_those_that_it_can(rig):
    rig.submit("sft", name="special", seeds=list(range(60)), priority=1, resources={"labels": ["rare"]})
    plain = rig.submit("sft", name="plain")
    assert rig.take().job_id == plain.id


def test_a_claim_takes_as_many_free_gpus_as_the_run_needs(rig):
    rig.submit("sft", resources={"gpus": 2})
    assert rig.claim(free_gpus=[3]) is None
    taken = rig.take(free_gpus=[1, 3, 5])
    assert taken.gpus == (1, 3)


def test_a_worker_claims_from_its_queues_alone(rig):
    rig.submit("sft")
    assert rig.claim(queues=["lco.gpu"]) is None
    assert rig.claim(queues=[]) is None


def test_blocked_and_paused_runs_are_not_claimed(rig):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.take()
    assert rig.claim() is None
    (other,) = rig.runs(rig.submit("sft", name="other").id)
    with rig.database.write() as session:
        pause(session, other.id)
    assert rig.claim() is None


def test_a_started_run_is_running_and_starting_again_changes_nothing(rig):
    rig.submit()
    taken = rig.take()
    for _ in range(2):
        with rig.database.write() as session:
            assert start(session, taken, 77) is Desired.RUN
    with rig.database.read() as session:
        assert Runs(session).attempts(taken.run_id)[0].pid == 77
        events = Events(session).page(taken.job_id, type="run.state").rows
    assert [event.data["state"] for event in events] == ["leased", "running"]
    assert rig.job(taken.job_id).status == "running"


def test_the_guard_is_the_heartbeat_and_brings_what_is_wanted(rig):
    rig.submit()
    taken = rig.started()
    before = rig.run(taken.run_id).hb_seq
    with rig.database.write() as session:
        assert guard(session, taken) is Desired.RUN
    with rig.database.write() as session:
        cancel(session, taken.run_id)
    with rig.database.write() as session:
        assert guard(session, taken) is Desired.CANCEL
    assert rig.run(taken.run_id).hb_seq == before + 2


def test_several_writes_of_one_transaction_are_one_heartbeat(rig):
    rig.submit()
    taken = rig.started()
    before = rig.run(taken.run_id).hb_seq
    with rig.database.write() as session:
        report_progress(session, taken, 1, 10)
        append_metrics(session, taken, [(1, {"train/loss": 1.0})])
        append_log(session, taken, 0, "text")
    assert rig.run(taken.run_id).hb_seq == before + 1


STALE_WRITES = {
    "guard": guard,
    "start": lambda session, taken: start(session, taken, 1),
    "progress": lambda session, taken: report_progress(session, taken, 1, 2),
    "metrics": lambda session, taken: append_metrics(session, taken, [(1, {"a": 1.0})]),
    "log": lambda session, taken: append_log(session, taken, 0, "t"),
    "checkpoint": lambda session, taken: record_checkpoint(session, taken, STATE),
    "event": lambda session, taken: add_event(session, taken, "m"),
    "finish": lambda session, taken: finish(session, taken, Outcome.SUCCEEDED),
}


@pytest.mark.parametrize("write", STALE_WRITES)
def test_nothing_of_an_attempt_that_is_over_is_written(sqlite_rig, write):
    rig = sqlite_rig
    rig.submit()
    stale = rig.started()
    rig.finish(stale, Outcome.STOPPED)
    rig.take()
    before = (rig.run(stale.run_id).version, rig.job(stale.job_id).version, rig.run(stale.run_id).hb_seq)
    with pytest.raises(NotYours), rig.database.write() as session:
        STALE_WRITES[write](session, stale)
    assert (rig.run(stale.run_id).version, rig.job(stale.job_id).version, rig.run(stale.run_id).hb_seq) == before


def test_the_same_attempt_in_another_workers_name_is_refused(rig):
    rig.submit()
    taken = rig.started()
    forged = type(taken)(**{name: getattr(taken, name) for name in taken.__slots__} | {"worker_id": new_id()})
    with pytest.raises(NotYours), rig.database.write() as session:
        guard(session, forged)


def test_a_passed_guard_does_not_carry_over_to_another_transaction(rig):
    rig.submit()
    taken = rig.started()
    with rig.database.read() as session:
        with session.begin():
            guard(session, taken)
        rig.finish(taken)
        with session.begin(), pytest.raises(NotYours):
            append_log(session, taken, 0, "t")


def test_metrics_of_a_step_written_twice_are_kept_once(rig):
    rig.submit()
    taken = rig.started()
    with rig.database.write() as session:
        append_metrics(session, taken, [(1, {"train/loss": 1.0}), (2, {"train/loss": math.nan, "train/reward": 2.0})])
        append_metrics(session, taken, [(2, {"train/loss": 3.0})])
    with rig.database.read() as session:
        rows = Metrics(session).rows(taken.run_id)
    assert [(row.key, row.step, row.value) for row in rows] == [
        ("train/loss", 1, 1.0),
        ("train/loss", 2, 3.0),
        ("train/reward", 2, 2.0),
    ]
    assert rig.run(taken.run_id).latest_metrics == {"train/loss": 3.0, "train/reward": 2.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_null(rig, value):
    rig.submit()
    taken = rig.started()
    with rig.database.write() as session:
        append_metrics(session, taken, [(1, {"train/loss": value})])
    with rig.database.read() as session:
        assert Metrics(session).rows(taken.run_id)[0].value is None
    assert rig.run(taken.run_id).latest_metrics == {"train/loss": None}


def test_a_log_chunk_written_twice_is_kept_once(rig):
    rig.submit()
    taken = rig.started()
    for chunk, text in ((0, "a"), (0, "a"), (1, "b")):
        with rig.database.write() as session:
            append_log(session, taken, chunk, text)
    with rig.database.read() as session:
        assert [piece.text for piece in Logs(session).tail(taken.run_id)] == ["a", "b"]


def test_any_output_of_a_process_can_be_kept(rig):
    rig.submit()
    taken = rig.started()
    with rig.database.write() as session:
        append_log(session, taken, 0, "nul \x00, lone \ud800, \U0001f600")
        add_event(session, taken, "\x00\udfff" * 9000, "warning")
        report_progress(session, taken, 1, 2, "\x00")
    with rig.database.read() as session:
        assert Logs(session).tail(taken.run_id)[0].text == "nul \ufffd, lone \ufffd, \U0001f600"


def test_a_checkpoint_recorded_twice_is_kept_once(rig):
    rig.submit()
    taken = rig.started()
    for _ in range(2):
        with rig.database.write() as session:
            record_checkpoint(session, taken, STATE)
    with rig.database.read() as session:
        (checkpoint,) = Checkpoints(session).page(run_id=taken.run_id).rows
        assert (checkpoint.step, checkpoint.kind, checkpoint.attempt) == (50, "state", 1)
        assert len(Events(session).page(taken.job_id, type="run.checkpoint").rows) == 1


def test_events_of_a_job_are_numbered_without_gaps(rig):
    job = rig.submit("sft", seeds=[0, 1])
    one, other = rig.started(), rig.started()
    for taken in (one, other, one):
        with rig.database.write() as session:
            add_event(session, taken, "said")
    rig.finish(one)
    rig.finish(other)
    with rig.database.read() as session:
        events = Events(session).page(job.id).rows
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert rig.job(job.id).event_seq == len(events)


def test_every_visible_change_makes_a_new_version_of_run_and_job(sqlite_rig):
    rig = sqlite_rig
    rig.submit()
    taken = rig.started()
    changes = [
        lambda session: report_progress(session, taken, 1, 2),
        lambda session: append_metrics(session, taken, [(1, {"a": 1.0})]),
        lambda session: cancel(session, taken.run_id),
        lambda session: finish(session, taken, Outcome.STOPPED),
    ]
    for change in changes:
        before = rig.run(taken.run_id).version, rig.job(taken.job_id).version
        with rig.database.write() as session:
            change(session)
        after = rig.run(taken.run_id).version, rig.job(taken.job_id).version
        assert after[0] > before[0] and after[1] > before[1]


def test_a_finished_evaluation_leaves_its_rows_with_its_train_seed(rig):
    experiment = rig.submit_experiment(rig.spec("sft", seeds=[7]), rig.spec("evaluation", seeds=[7]))
    model = CheckpointRow(step=9, path="runs/r/1/model", manifest_sha256="0" * 64, size_bytes=1)
    rig.finish(rig.started(), collected=Collected(models=[model]))
    taken = rig.started()
    rows = Collected(
        results=[result(0, math.nan), result(1), result(None)],
        completions=(completion(number, "\x00") for number in range(2100)),
    )
    assert rig.finish(taken, collected=rows).state is RunState.SUCCEEDED
    with rig.database.read() as session:
        (checkpoint,) = Checkpoints(session).page().rows
        results = Results(session).all(experiment_id=experiment.id)
        completions = list(Results(session).all_completions(taken.run_id))
    assert [(row.eval_seed, row.value, row.train_seed, row.method, row.checkpoint_id) for row in results] == [
        (0, None, 7, "sft", checkpoint.id),
        (1, 0.5, 7, "sft", checkpoint.id),
        (None, 0.5, 7, "sft", checkpoint.id),
    ]
    assert [row.position for row in completions] == list(range(2100))
    assert {(row.completion, row.train_seed) for row in completions} == {("\ufffd", 7)}
    assert rig.run(taken.run_id).output_attempt == 1


def test_a_failed_attempt_leaves_no_rows_and_does_not_read_them(sqlite_rig):
    sqlite_rig.submit_experiment(sqlite_rig.spec("sft"), sqlite_rig.spec("evaluation"))
    sqlite_rig.finish(sqlite_rig.started())
    taken = sqlite_rig.started()

    def unread():
        raise AssertionError("read")
        yield

    sqlite_rig.finish(taken, Outcome.USER, collected=Collected(results=unread(), completions=unread()))
    assert sqlite_rig.run(taken.run_id).output_attempt == 0


def test_rows_that_cannot_be_written_leave_the_attempt_open(rig):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.started())
    taken = rig.started()
    with pytest.raises(Exception, match=r"(?i)unique"):
        rig.finish(taken, collected=Collected(results=[result(None), result(None)]))
    assert rig.run(taken.run_id).state == RunState.RUNNING
    assert rig.finish(taken, collected=Collected(results=[result(None)])).state is RunState.SUCCEEDED


def test_success_that_comes_after_a_cancel_is_dropped(rig):
    rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.started())
    taken = rig.started()
    with rig.database.write() as session:
        cancel(session, taken.run_id)
    assert rig.finish(taken, collected=Collected(results=[result()])).state is RunState.CANCELLED
    with rig.database.read() as session:
        assert Results(session).page().rows == []
