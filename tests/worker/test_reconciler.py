import time
from datetime import UTC, datetime, timedelta

import redis
from sqlalchemy import update

from store import control
from store.doorbell import due_for_ring
from store.models.run import Run
from store.models.worker import Worker
from store.repositories.workers import Workers
from tests.worker.conftest import Platform, Supervision
from worker.presence import Presence
from worker.reconciler import Reconciler


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def look_for(reconciler: Reconciler, clock: Clock, seconds: float) -> None:
    for _ in range(round(seconds / 0.25)):
        clock.now += 0.25
        reconciler.tick()


def test_a_silent_attempt_is_lost_after_a_lease_and_not_before(any_platform: Platform) -> None:
    run_id = any_platform.submit()
    assert any_platform.supervisor().take(["lco.cpu"]) is not None
    reconciler = Reconciler(any_platform.settings, any_platform.database, clock := Clock())
    look_for(reconciler, clock, 1.5)
    assert any_platform.state(run_id) == "leased"
    look_for(reconciler, clock, 0.5)
    assert any_platform.state(run_id) == "queued"
    assert any_platform.attempts(run_id)[0].outcome == "lost"


def test_a_beating_attempt_is_never_lost(platform: Platform) -> None:
    run_id = platform.submit(steps=100, seconds=0.03)
    supervision = Supervision(platform.supervisor())
    reconciler, until = platform.reconcile(), time.monotonic() + 2.5
    while time.monotonic() < until:
        reconciler.tick()
        time.sleep(0.1)
    assert supervision.is_over()
    assert [attempt.outcome for attempt in platform.attempts(run_id)] == ["succeeded"]


def test_a_reaper_that_could_not_look_gives_a_whole_lease_again(platform: Platform) -> None:
    run_id = platform.submit()
    assert platform.supervisor().take(["lco.cpu"]) is not None
    reconciler = Reconciler(platform.settings, platform.database, clock := Clock())
    look_for(reconciler, clock, 1.0)
    with platform.outage():
        look_for(reconciler, clock, 0.25)
    look_for(reconciler, clock, 1.5)
    assert platform.state(run_id) == "leased"
    look_for(reconciler, clock, 0.5)
    assert platform.state(run_id) == "queued"


def test_time_in_which_the_reaper_slept_does_not_count(platform: Platform) -> None:
    run_id = platform.submit()
    assert platform.supervisor().take(["lco.cpu"]) is not None
    reconciler = Reconciler(platform.settings, platform.database, clock := Clock())
    reconciler.tick()
    clock.now += 600
    reconciler.tick()
    assert platform.state(run_id) == "leased"


def test_a_lost_run_whose_cancel_was_asked_for_is_cancelled(platform: Platform) -> None:
    run_id = platform.submit()
    assert platform.supervisor().take(["lco.cpu"]) is not None
    with platform.database.write() as session:
        control.cancel(session, run_id)
    reconciler = Reconciler(platform.settings, platform.database, clock := Clock())
    look_for(reconciler, clock, 2.0)
    assert platform.state(run_id) == "cancelled"


def test_two_reconcilers_do_no_more_than_one(any_platform: Platform) -> None:
    run_id = any_platform.submit()
    assert any_platform.supervisor().take(["lco.cpu"]) is not None
    clock = Clock()
    both = [Reconciler(any_platform.settings, any_platform.database, clock) for _ in range(2)]
    for _ in range(12):
        clock.now += 0.25
        for reconciler in both:
            reconciler.tick()
    assert any_platform.run(run_id).infra_failures == 1
    assert [event.data["state"] for event in any_platform.events(run_id)] == ["leased", "queued"]


def test_a_dead_broker_holds_nothing_up(platform: Platform) -> None:
    platform.settings = platform.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    run_id = platform.submit()
    reconciler = platform.reconcile()
    started = time.monotonic()
    reconciler.tick()
    assert time.monotonic() - started < 3
    with platform.database.write() as session:
        session.execute(update(Run).values(hint_at=datetime.now(UTC) - timedelta(seconds=11)))
        assert [ring.run_id for ring in due_for_ring(session)] == [run_id], "it is rung for again"
    supervisor = platform.supervisor()
    attempt = supervisor.take(["lco.cpu"])
    assert attempt is not None
    supervisor.supervise(attempt)
    assert platform.state(run_id) == "succeeded"


def test_a_ring_is_noted(platform: Platform, broker_url: str) -> None:
    platform.settings = platform.settings.model_copy(update={"broker_url": broker_url})
    platform.submit()
    platform.reconcile().tick()
    with platform.database.read() as session:
        assert due_for_ring(session) == []
    with redis.Redis.from_url(broker_url) as broker:
        assert broker.llen("lco.cpu") == 1


def test_workers_that_are_long_gone_are_forgotten(platform: Platform) -> None:
    gone, alive = (platform.supervisor() for _ in range(2))
    reconciler = platform.reconcile()
    for supervisor in (gone, alive):
        Presence(supervisor, reconciler).announce()
    with platform.database.write() as session:
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(Worker).where(Worker.id == gone.worker_id).values(last_seen_at=long_ago))
    reconciler.tick()
    with platform.database.read() as session:
        assert [row.id for row in Workers(session).page().rows] == [alive.worker_id]
