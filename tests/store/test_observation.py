"""What operators read of the queue, on each engine: waits, signals between processes, and what mirrors lack."""

from uuid import UUID

from store import queue
from store.database import Database
from store.repositories.mirrors import Mirrors
from store.repositories.runs import Runs
from store.repositories.signals import FENCED, RECONCILED, Signals
from store.settings import Settings
from store.sources import spec_of
from store.submission import TRACEPARENT, submit_job

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SPEC = {"kind": "sft", "name": "warm-up", "config": {"policy": {"name": "llama"}, "prompts": {"name": "sums"}}}


def test_signals_are_counted_and_dated(any_database: Database) -> None:
    for _ in range(3):
        with any_database.write() as session:
            Signals(session).count_fenced()
            Signals(session).note_success()
    with any_database.read() as session:
        found = Signals(session).all()
        assert Signals(session).num_pending_deliveries() == 0
    assert found[FENCED] == 3
    assert found[RECONCILED] > 1.7e9


def test_a_claim_knows_its_trace_and_its_wait_and_mirrors_what_it_logs(
    any_database: Database, any_settings: Settings
) -> None:
    with any_database.write() as session:
        session.info[TRACEPARENT] = TRACE
        submit_job(session, spec_of(SPEC), any_settings)
    with any_database.write() as session:
        claim = queue.claim(
            session,
            worker_id=UUID(int=1),
            queues=["lco.cpu"],
            labels=[],
            free_gpus=[],
            dispatcher="local",
            host="here",
        )
    assert claim is not None
    assert claim.traceparent == TRACE
    assert claim.waited_seconds >= 0
    with any_database.write() as session:
        queue.append_metrics(session, claim, [(step, {"train/loss": 0.5}) for step in (1, 2, 3)])
    with any_database.read() as session:
        runs = Runs(session)
        assert runs.waits([60.0]) == ([1, 1], claim.waited_seconds)
        assert [run.id for run in runs.live(10)] == [claim.run_id]
        assert runs.held() == (1, 0)
        (pending,) = Mirrors(session).pending("tensorboard:x")
        assert Mirrors(session).points(pending) == [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.5})]
    with any_database.write() as session:
        Mirrors(session).save(claim.run_id, "tensorboard:x", step=2, error="away")
    with any_database.read() as session:
        (again,) = Mirrors(session).pending("tensorboard:x")
        assert again.step == 2
        assert Mirrors(session).points(again) == []
        assert [one.step for one in Mirrors(session).pending("mlflow:y")] == [-1]
