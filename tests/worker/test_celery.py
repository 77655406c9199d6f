"""Celery, Redis and PostgreSQL, all real: the app of `worker.app` with stand-in processes."""

import os
import signal
import subprocess
from uuid import UUID

import pytest
import redis
from sqlalchemy import select

from store.doorbell import ring
from store.models.run import Attempt
from store.repositories.workers import Workers
from tests.worker.conftest import Platform, wait_until
from tests.worker.test_supervisor import expected_link
from worker import app


@pytest.fixture
def platform(celery_platform: Platform) -> Platform:
    return celery_platform


def spawn_worker(platform: Platform, slots: int = 2) -> "subprocess.Popen[bytes]":
    """A Celery worker, once its pool processes have signed in."""
    before = len(pool_pids(platform))
    worker = platform.spawn(
        "-m", "celery", "-A", "tests.worker.stand_in_app", "worker", "-P", "prefork", "-c", str(slots),
        "-Q", "lco.cpu", "--without-mingle", "--without-gossip", "-l", "INFO",
    )  # fmt: skip
    assert wait_until(lambda: len(pool_pids(platform)) == before + slots, 20), "the pool did not come up"
    return worker


def pool_pids(platform: Platform) -> list[int]:
    with platform.database.read() as session:
        rows = Workers(session).page().rows
    assert all((row.dispatcher, row.slots) == ("celery", 1) for row in rows)
    return [row.pid for row in rows]


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_ring_wakes_every_slot_and_the_workers_drain_on_sigterm(platform: Platform) -> None:
    worker = spawn_worker(platform)
    run_id = platform.submit(seeds=(0, 1), steps=60, seconds=0.02)
    assert ring(platform.settings, "lco.cpu")
    assert wait_until(lambda: platform.job(run_id).status == "succeeded", 20)
    with platform.database.read() as session:
        first, second = session.scalars(select(Attempt))
    assert first.started_at < second.ended_at and second.started_at < first.ended_at, "both slots worked at a time"
    assert (first.dispatcher, first.outcome) == ("celery", "succeeded")
    assert platform.link(run_id, 1) == expected_link(0, 60)

    endless = platform.submit(steps=100_000, every=1_000_000)
    assert ring(platform.settings, "lco.cpu")
    assert wait_until(lambda: platform.is_training(endless))
    worker.terminate()
    assert worker.wait(10) == 0
    assert platform.state(endless) == "queued"
    assert platform.attempts(endless)[0].outcome == "stopped"
    assert not platform.marked(endless)
    assert pool_pids(platform) == [], "they signed off"


def test_a_lost_broker_touches_no_run_and_unrung_runs_are_found(platform: Platform) -> None:
    run_id = platform.submit(steps=60, seconds=0.02)
    spawn_worker(platform, slots=1)
    assert wait_until(lambda: platform.is_training(run_id)), "nobody rang for it but the reconciler"
    with redis.Redis.from_url(platform.settings.broker_url) as broker:
        broker.flushdb()
        broker.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    second = platform.submit()
    assert wait_until(lambda: platform.state(run_id) == "succeeded", 10)
    assert [attempt.outcome for attempt in platform.attempts(run_id)] == ["succeeded"]
    assert wait_until(lambda: platform.state(second) == "succeeded", 20), "the queue is heard again"


def test_beat_sends_ticks(platform: Platform) -> None:
    platform.spawn("-m", "celery", "-A", "tests.worker.stand_in_app", "beat")
    with redis.Redis.from_url(platform.settings.broker_url) as broker:
        assert wait_until(lambda: broker.llen("lco.cpu") == 1, 20)
        assert b'"lco.tick"' in broker.lrange("lco.cpu", 0, 0)[0]


def test_after_a_kill_of_any_process_no_orphan_lives_and_the_run_goes_on(platform: Platform) -> None:
    worker = spawn_worker(platform, slots=1)
    run_id = platform.submit(steps=200, every=10, seconds=0.02)
    assert ring(platform.settings, "lco.cpu")
    assert wait_until(lambda: platform.is_training(run_id, step=30))
    [pool_process] = pool_pids(platform)
    kill(platform, run_id, pool_process)

    assert wait_until(lambda: platform.is_training(run_id, attempt=2, step=100), 20), "Celery replaced the pool process"
    [pool_process] = set(pool_pids(platform)) - {pool_process}
    kill(platform, run_id, worker.pid)
    assert wait_until(lambda: is_gone(pool_process), 5)

    spawn_worker(platform, slots=1)
    assert wait_until(lambda: platform.state(run_id) == "succeeded", 20)
    attempts = platform.attempts(run_id)
    assert [attempt.outcome for attempt in attempts] == ["lost", "lost", "succeeded"]
    assert attempts[1].resumed_from_step is None, "a lost attempt tells nothing"
    assert attempts[2].resumed_from_step is not None and attempts[2].resumed_from_step >= 100
    assert platform.link(run_id, 3) == expected_link(0, 200)


def kill(platform: Platform, run_id: UUID, pid: int) -> None:
    """Kills a supervising process; within five seconds nothing of the attempt lives."""
    marked = platform.marked(run_id)
    assert len(marked) == 2, "the run and its watcher"
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: all(map(is_gone, [pid, *marked])), 5)


def test_the_settings_of_celery_are_those_of_a_doorbell() -> None:
    conf = app.app.conf
    assert not conf.task_acks_late and conf.worker_disable_prefetch
    assert conf.accept_content == ["json"] and conf.result_backend is None and conf.task_ignore_result
    assert not conf.worker_enable_remote_control
    assert conf.beat_schedule == {"tick": {"task": "lco.tick", "schedule": 5.0, "options": {"expires": 10}}}
    assert {"lco.wake", "lco.tick"} <= app.app.tasks.keys()
