import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pysqlite3.dbapi2 as pysqlite3

from store.database import migrate
from store.repositories.workers import Workers
from tests.worker.conftest import Platform, wait_until
from tests.worker.test_supervisor import expected_link


def workers(platform: Platform) -> list[tuple[int, int, bool]]:
    with platform.database.read() as session:
        return [(row.pid, row.slots, row.is_draining) for row in Workers(session).page().rows]


def test_the_loop_supervises_several_runs_at_a_time_and_signs_in_and_off(platform: Platform) -> None:
    seeds = tuple(range(4))
    run_id = platform.submit(seeds=seeds, steps=20, seconds=0.02)
    loop = platform.spawn_local()
    assert wait_until(lambda: workers(platform) == [(loop.pid, 2, False)])
    assert wait_until(lambda: platform.job(run_id).status == "succeeded", 20)
    loop.terminate()
    assert loop.wait(5) == 0
    assert workers(platform) == []


def test_sigterm_drains(platform: Platform) -> None:
    run_id = platform.submit(steps=100_000, every=1_000_000, seconds=0.01)
    loop = platform.spawn_local()
    assert wait_until(lambda: platform.is_training(run_id))
    loop.terminate()
    assert loop.wait(5) == 0
    assert platform.state(run_id) == "queued"
    assert platform.attempts(run_id)[0].outcome == "stopped"
    assert list(platform.directory(run_id).glob("checkpoints/*/manifest.json"))
    assert not platform.marked(run_id)


def test_a_second_sigterm_does_not_wait_for_a_deaf_run(platform: Platform) -> None:
    run_id = platform.submit(steps=100_000, every=1_000_000, deaf=True)
    loop = platform.spawn_local()
    assert wait_until(lambda: platform.is_training(run_id))
    loop.terminate()
    time.sleep(0.3)
    assert loop.poll() is None
    loop.terminate()
    assert loop.wait(3) == 0
    assert platform.state(run_id) == "queued"


def test_after_the_supervisors_kill_no_orphan_lives_and_the_next_one_finishes_the_run(platform: Platform) -> None:
    run_id = platform.submit(steps=150, every=10, seconds=0.02)
    loop = platform.spawn_local()
    assert wait_until(lambda: platform.is_training(run_id, step=30))
    loop.kill()
    assert wait_until(lambda: not platform.marked(run_id), 5)
    platform.spawn_local()
    assert wait_until(lambda: platform.state(run_id) == "succeeded", 20)
    first, second = platform.attempts(run_id)
    assert (first.outcome, second.outcome) == ("lost", "succeeded")
    assert second.resumed_from_step is not None and second.resumed_from_step >= 30
    assert platform.link(run_id, 2) == expected_link(0, 150)


def test_a_frozen_supervisor_that_wakes_up_kills_its_run_and_writes_nothing(platform: Platform) -> None:
    run_id = platform.submit(steps=250, every=10, seconds=0.02)
    frozen = platform.spawn_local()
    assert wait_until(lambda: platform.is_training(run_id, step=10))
    freeze(platform, frozen.pid)
    platform.spawn_local()
    assert wait_until(lambda: platform.is_training(run_id, attempt=2, step=10), 20)
    zombie = platform.attempts(run_id)[0].pid
    assert zombie is not None
    os.kill(frozen.pid, signal.SIGCONT)
    assert wait_until(lambda: not is_alive(zombie), 5)
    assert wait_until(lambda: platform.state(run_id) == "succeeded", 20)
    first, second = platform.attempts(run_id)
    assert (first.outcome, first.exit_code, second.outcome) == ("lost", None, "succeeded")
    assert platform.link(run_id, 2) == expected_link(0, 250)
    assert len([event for event in platform.events(run_id) if event.data.get("state") == "succeeded"]) == 1


def freeze(platform: Platform, pid: int) -> None:
    """Stops a process where it holds no lock of SQLite, which would stop everybody."""
    path = platform.settings.sqlalchemy_url.removeprefix("sqlite:///")
    while True:
        os.kill(pid, signal.SIGSTOP)
        while not is_stopped(pid):  # the signal is sent at once and obeyed a moment later, thread by thread
            time.sleep(0.001)
        with closing(pysqlite3.connect(path, timeout=0.1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except pysqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                connection.execute("ROLLBACK")
                return


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process stands still."""
    stats = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] in "Tt" for stat in stats)


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_loop_waits_for_the_schema(platform: Platform) -> None:
    migrate(platform.settings, "base")
    loop = platform.spawn_local()
    time.sleep(1.0)
    assert loop.poll() is None
    migrate(platform.settings)
    assert wait_until(lambda: workers(platform) == [(loop.pid, 2, False)], 5)
    loop.terminate()
    assert loop.wait(5) == 0


def test_the_supervisor_never_loads_torch(platform: Platform) -> None:
    heavy = "[name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers', 'numpy')]"
    command = [sys.executable, "-c", f"import worker.local, worker.app, sys; print({heavy})"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=platform.environment())
    assert answer.stdout == "[]\n"
    loop = platform.spawn_local()
    assert wait_until(lambda: workers(platform) != [])
    with open(f"/proc/{loop.pid}/maps") as stream:
        assert not re.search(r"libtorch|libcudart", stream.read())
