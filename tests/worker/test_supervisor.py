import dataclasses
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update

from store import control
from store.ids import encode_id
from store.models.record import Checkpoint, Completion, LogChunk, Metric, Result
from store.models.run import Run
from tests.worker.conftest import Platform, Supervision, wait_until
from tests.worker.stand_in_kinds import STAND_INS
from worker.kinds import collect_results


def expected_link(seed: int, steps: int) -> str:
    link = str(seed)
    for step in range(1, steps + 1):
        link = hashlib.sha256(f"{link} {step}".encode()).hexdigest()
    return link


def supervise_all(platform: Platform) -> None:
    supervisor = platform.supervisor()
    while (attempt := supervisor.take(["lco.cpu"])) is not None:
        supervisor.supervise(attempt)


def test_a_finished_run_leaves_its_rows(any_platform: Platform) -> None:
    run_id = any_platform.submit(seeds=(5,), steps=4, every=2)
    supervise_all(any_platform)
    run, [attempt] = any_platform.run(run_id), any_platform.attempts(run_id)
    assert (run.state, run.output_attempt, run.progress_step, run.progress_total) == ("succeeded", 1, 4, 4)
    assert (attempt.outcome, attempt.exit_code, attempt.dispatcher) == ("succeeded", 0, "local")
    assert attempt.pid and attempt.resumed_from_step is None
    assert any_platform.job(run_id).status == "succeeded"
    assert any_platform.link(run_id, 1) == expected_link(5, 4)
    with any_platform.database.read() as session:
        losses = select(Metric.step, Metric.value).where(Metric.key == "train/loss").order_by(Metric.step)
        assert session.execute(losses).all() == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
        assert session.scalars(select(Metric.value).where(Metric.key == "train/broken")).all() == [None] * 4
        rows = select(Checkpoint.kind, Checkpoint.step, Checkpoint.path).order_by(Checkpoint.kind, Checkpoint.step)
        place = f"runs/{any_platform.directory(run_id).parent.name}/1"
        assert session.execute(rows).all() == [
            ("model", 4, f"{place}/model"),
            ("state", 2, f"{place}/checkpoints/step-000002"),
            ("state", 4, f"{place}/checkpoints/step-000004"),
        ]
        assert f"attempt 1 of seed 5, pid {attempt.pid}\n" in "".join(session.scalars(select(LogChunk.text)))


def test_an_evaluation_leaves_results_and_completions(any_platform: Platform) -> None:
    first = any_platform.submit(seeds=(3,))
    supervise_all(any_platform)
    policy = encode_id("job", any_platform.run(first).job_id)
    benchmarks = [{"name": "sums", "problems": {"name": "sums"}}]
    config = {"policy": policy, "benchmarks": benchmarks, "decodings": ["greedy"]}
    run_id = any_platform.submit_spec({"kind": "evaluation", "name": "eval", "seeds": [3], "config": config})
    supervise_all(any_platform)
    assert any_platform.state(run_id) == "succeeded", any_platform.events(run_id)[-1].message
    written = json.loads((any_platform.directory(run_id) / "config.json").read_text())
    assert written["policy"] == str(any_platform.directory(first) / "model")
    assert written["seed"] == 3
    with any_platform.database.read() as session:
        [result] = session.scalars(select(Result))
        assert (result.value, result.eval_seed, result.train_seed, result.num_examples) == (0.5, None, 3, 2)
        completions = session.scalars(select(Completion).order_by(Completion.position)).all()
        seen = [(row.position, row.example_id, row.correct) for row in completions]
        assert seen == [(0, "1+1=", True), (1, "1+2=", False)]


def failure(exit_code: int, outcome: str = "", code: str = "", message: str = "") -> dict[str, object]:
    error = {"outcome": outcome, "code": code, "message": message} if outcome else {}
    return {"fail": {"exit_code": exit_code, **error}}


@pytest.mark.parametrize(
    ("behaviour", "state", "outcome", "exit_code", "error"),
    [
        (failure(2, "user", "bad", "no\0pe"), "failed", "user", 2, ("bad", "no\ufffdpe")),
        (failure(2), "failed", "user", 2, ("refused", "it fails")),
        (failure(1), "retry_wait", "infra", 1, ("exit_status", "ended with exit status 1")),
        (failure(1, "oom", "oom", "m"), "retry_wait", "oom", 1, ("oom", "m")),
        (failure(1, "non_finite", "nan", "m"), "failed", "non_finite", 1, ("nan", "m")),
        (failure(1, "collapsed", "Collapsed", "m"), "failed", "collapsed", 1, ("Collapsed", "m")),
        (failure(1, "succeeded"), "retry_wait", "infra", 1, ("exit_status", "ended with exit status 1")),
        (failure(75), "retry_wait", "infra", 75, ("exit_status", "ended with exit status 75")),
        ({"kill_at": [1, 1]}, "retry_wait", "infra", -9, ("signal", "ended with SIGKILL")),
        ({"no_manifest": True}, "retry_wait", "infra", 0, ("manifest", "no readable manifest")),
    ],
    ids=["user", "refused", "infra", "oom", "non-finite", "collapsed", "liar", "unasked-stop", "signal", "no-manifest"],
)
def test_an_exit_is_classified(
    platform: Platform, behaviour: dict[str, object], state: str, outcome: str, exit_code: int, error: tuple[str, str]
) -> None:
    run_id = platform.submit(**behaviour)
    supervise_all(platform)
    run, [attempt] = platform.run(run_id), platform.attempts(run_id)
    assert (run.state, attempt.outcome, attempt.exit_code) == (state, outcome, exit_code)
    assert run.error_code == error[0] and error[1] in run.error_message and error[1] in attempt.error_message


def test_a_missing_input_is_the_users_error(platform: Platform) -> None:
    platform.settings.data.mkdir(parents=True)
    data = platform.settings.data / "rows.jsonl"
    data.write_text("{}\n")
    config = {"policy": {"name": "llama"}, "prompts": {"name": "jsonl", "path": "data:rows.jsonl"}}
    run_id = platform.submit_spec({"kind": "sft", "name": "a", "config": config})
    data.unlink()
    supervise_all(platform)
    assert platform.state(run_id) == "failed"
    assert "/config/prompts/path" in platform.run(run_id).error_message


def test_output_that_cannot_be_stored_is_no_success(platform: Platform) -> None:
    run_id = platform.submit()
    supervisor = platform.supervisor(kinds={"sft": dataclasses.replace(STAND_INS["sft"], collect=collect_results)})
    attempt = supervisor.take(["lco.cpu"])
    assert attempt is not None
    supervisor.supervise(attempt)
    assert platform.run(run_id).error_code == "output"
    assert platform.state(run_id) == "retry_wait"


def test_a_killed_run_resumes_from_its_checkpoint(any_platform: Platform) -> None:
    run_id = any_platform.submit(steps=8, every=2, kill_at=[1, 5], seconds=0.05)
    supervise_all(any_platform)
    assert any_platform.state(run_id) == "retry_wait"
    assert wait_until(lambda: any_platform.reconcile().tick() or any_platform.state(run_id) == "queued", 5)
    supervise_all(any_platform)
    assert any_platform.state(run_id) == "succeeded"
    first, second = any_platform.attempts(run_id)
    assert (first.outcome, second.outcome, second.resumed_from_step) == ("infra", "succeeded", 4)
    assert any_platform.link(run_id, 2) == expected_link(0, 8)
    with any_platform.database.read() as session:
        assert session.scalar(select(func.count()).where(Metric.key == "train/loss")) == 8


@pytest.mark.parametrize("order", ["cancel", "pause"])
def test_an_order_stops_a_running_run_at_a_checkpoint(any_platform: Platform, order: str) -> None:
    run_id = any_platform.submit(steps=1000, every=1000, seconds=0.02)
    supervision = Supervision(any_platform.supervisor())
    assert wait_until(lambda: any_platform.is_training(run_id))
    with any_platform.database.write() as session:
        (control.cancel if order == "cancel" else control.pause)(session, run_id)
    assert any_platform.state(run_id) == "stopping"
    assert supervision.is_over(3)
    assert any_platform.state(run_id) == {"cancel": "cancelled", "pause": "paused"}[order]
    [attempt] = any_platform.attempts(run_id)
    assert (attempt.outcome, attempt.exit_code) == ("stopped", 75)
    assert list(any_platform.directory(run_id).glob("checkpoints/*/manifest.json"))


def test_a_paused_run_goes_on_from_where_it_was(platform: Platform) -> None:
    run_id = platform.submit(steps=30, every=1000, seconds=0.02)
    supervision = Supervision(platform.supervisor())
    assert wait_until(lambda: platform.is_training(run_id))
    with platform.database.write() as session:
        control.pause(session, run_id)
    assert supervision.is_over(3)
    with platform.database.write() as session:
        control.resume(session, run_id)
    supervise_all(platform)
    assert platform.state(run_id) == "succeeded"
    assert platform.attempts(run_id)[1].resumed_from_step
    assert platform.link(run_id, 2) == expected_link(0, 30)


def test_a_run_that_pauses_itself_is_paused_and_can_be_resumed(platform: Platform) -> None:
    run_id = platform.submit(**failure(75, "paused", "Paused", "collapse watch at step 1"))
    supervise_all(platform)
    run, [attempt] = platform.run(run_id), platform.attempts(run_id)
    assert (run.state, run.desired, attempt.outcome, attempt.exit_code) == ("paused", "pause", "paused", 75)
    assert platform.job(run_id).status == "paused"
    assert "collapse watch at step 1" in platform.events(run_id)[-1].message + platform.events(run_id)[-2].message
    with platform.database.write() as session:
        control.resume(session, run_id)
    supervise_all(platform)
    assert len(platform.attempts(run_id)) == 2


def test_a_deaf_run_is_killed_when_its_time_to_stop_is_over(platform: Platform) -> None:
    platform.settings = platform.settings.model_copy(update={"stop_seconds": 0.4})
    run_id = platform.submit(steps=100_000, deaf=True, stray=True)
    supervision = Supervision(platform.supervisor())
    assert wait_until(lambda: platform.is_training(run_id))
    with platform.database.write() as session:
        control.cancel(session, run_id)
    assert supervision.is_over(3)
    assert platform.state(run_id) == "cancelled"
    assert platform.attempts(run_id)[0].exit_code == -signal.SIGKILL
    assert wait_until(lambda: not platform.marked(run_id), 1)


def test_a_drain_gives_runs_back_at_a_checkpoint(any_platform: Platform) -> None:
    run_id = any_platform.submit(steps=100, every=1000, seconds=0.02)
    supervisor = any_platform.supervisor()
    supervision = Supervision(supervisor)
    assert wait_until(lambda: any_platform.is_training(run_id))
    supervisor.drain()
    assert supervision.is_over(3)
    run, [attempt] = any_platform.run(run_id), any_platform.attempts(run_id)
    assert (run.state, run.worker_id, run.infra_failures, attempt.outcome) == ("queued", None, 0, "stopped")
    assert supervisor.take(["lco.cpu"]) is None, "it takes nothing more"
    supervise_all(any_platform)
    assert any_platform.link(run_id, 2) == expected_link(0, 100)


def test_a_supervisor_that_lost_its_run_kills_it_and_writes_nothing(any_platform: Platform) -> None:
    run_id = any_platform.submit(steps=100_000, every=1_000_000)
    supervision = Supervision(any_platform.supervisor())
    assert wait_until(lambda: any_platform.is_training(run_id))
    taken = {"attempt": Run.attempt + 1, "worker_id": UUID(int=1), "progress_step": -7}
    with any_platform.database.write() as session:
        session.execute(update(Run).where(Run.id == run_id).values(**taken))
    assert supervision.is_over(3)
    run = any_platform.run(run_id)
    assert (run.state, run.attempt, run.worker_id, run.progress_step) == ("running", 2, UUID(int=1), -7)
    assert any_platform.attempts(run_id)[0].ended_at is None
    assert wait_until(lambda: not any_platform.marked(run_id), 1)


def test_a_locked_database_loses_no_attempt(platform: Platform) -> None:
    run_id = platform.submit(steps=40, every=10, seconds=0.02)
    supervision = Supervision(platform.supervisor())
    assert wait_until(lambda: platform.is_training(run_id))
    with platform.database.engine.connect() as intruder:  # a writer beside the platform's own turns
        intruder.execute(text("PRAGMA busy_timeout = 100"))
        intruder.exec_driver_sql("ROLLBACK")
        intruder.exec_driver_sql("BEGIN EXCLUSIVE")
        time.sleep(3)
        intruder.exec_driver_sql("ROLLBACK")
    assert supervision.is_over(10)
    run, [attempt] = platform.run(run_id), platform.attempts(run_id)
    assert (run.state, attempt.outcome, run.progress_step) == ("succeeded", "succeeded", 40)
    with platform.database.read() as session:
        assert session.scalar(select(func.count()).where(Metric.key == "train/loss")) == 40


def test_cut_connections_lose_no_attempt(postgres_platform: Platform) -> None:
    run_id = postgres_platform.submit(steps=60, every=10, seconds=0.02)
    supervision = Supervision(postgres_platform.supervisor())
    assert wait_until(lambda: postgres_platform.is_training(run_id))
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
    for _ in range(3):
        with postgres_platform.database.engine.connect() as intruder:
            intruder.execute(text(cut))
        time.sleep(0.2)
    assert supervision.is_over(10)
    assert postgres_platform.state(run_id) == "succeeded"
    assert [attempt.outcome for attempt in postgres_platform.attempts(run_id)] == ["succeeded"]
    with postgres_platform.database.read() as session:
        assert session.scalar(select(func.count()).where(Metric.key == "train/loss")) == 60


def test_a_long_log_is_stored_whole(platform: Platform) -> None:
    run_id = platform.submit(print_bytes=300_000)
    supervise_all(platform)
    with platform.database.read() as session:
        stored = "".join(session.scalars(select(LogChunk.text).order_by(LogChunk.chunk)))
    assert stored == (platform.directory(run_id) / "log.txt").read_text()
    assert len(stored) > 300_000


def test_a_run_is_given_up_when_the_database_stays_silent(platform: Platform) -> None:
    run_id = platform.submit(steps=100_000, every=1_000_000)
    supervision = Supervision(platform.supervisor(silence_seconds=1.0))
    assert wait_until(lambda: platform.is_training(run_id))
    with platform.outage():
        assert supervision.is_over(5)
    assert wait_until(lambda: not platform.marked(run_id), 1)
    assert platform.state(run_id) == "running", "nothing was written; the reaper will see to it"


def test_gpus_are_handed_out_and_given_back(platform: Platform) -> None:
    platform.settings = platform.settings.model_copy(update={"gpus": "4,6"})
    first, second = (platform.submit(gpus=1, steps=1000, seconds=0.02) for _ in range(2))
    third = platform.submit(gpus=1)
    supervisor = platform.supervisor()
    supervisions = [Supervision(supervisor, ("lco.gpu",)) for _ in range(2)]
    assert supervisor.take(["lco.gpu"]) is None, "no third GPU"
    assert wait_until(lambda: platform.is_training(first) and platform.is_training(second))
    seen = {}
    for run_id in (first, second):
        pid = platform.attempts(run_id)[0].pid
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        [seen[run_id]] = [entry.partition("=")[2] for entry in environment if entry.startswith("CUDA_VISIBLE_DEVICES=")]
    assert sorted(seen.values()) == ["4", "6"]
    assert {str(gpu) for run_id in seen for gpu in platform.attempts(run_id)[0].gpus} == {"4", "6"}
    with platform.database.write() as session:
        control.cancel(session, first)
    assert supervisions[0].is_over(3)
    attempt = supervisor.take(["lco.gpu"])
    assert attempt is not None
    supervisor.supervise(attempt)
    assert platform.state(third) == "succeeded"
    assert platform.attempts(third)[0].gpus == [int(seen[first])]
    supervisor.drain()
    assert supervisions[1].is_over(3)


def test_the_supervisor_is_no_child_of_signals_to_its_runs(platform: Platform) -> None:
    run_id = platform.submit(steps=1000, seconds=0.02)
    supervision = Supervision(platform.supervisor())
    assert wait_until(lambda: platform.is_training(run_id))
    pid = platform.attempts(run_id)[0].pid
    assert os.getpgid(pid) == os.getsid(pid) == pid != os.getpgid(0)
    os.kill(pid, signal.SIGKILL)
    assert supervision.is_over(3)
    assert platform.state(run_id) == "retry_wait"
