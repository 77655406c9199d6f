"""A run of several processes under its supervisor: real torchrun, the real stage, gloo on the CPU."""

import os
import signal
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from lco.manifest import read_manifest
from store import control
from store.models.record import Metric
from tests.worker.conftest import Platform, Supervision, wait_until
from worker.kinds import KINDS

pytestmark = pytest.mark.timeout(300)


def submit(platform: Platform, steps: int) -> UUID:
    """A warm-up on two processes."""
    policy = {"name": "llama", "hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 1}
    config = {"policy": policy, "prompts": {"name": "sums", "num_problems": 20}, "steps": steps, "batch_size": 4}
    config |= {"device": "cpu", "parallel": "fsdp2", "checkpoint_every_steps": 100_000}
    return platform.submit_spec({"kind": "sft", "name": "shared", "config": config, "resources": {"processes": 2}})


def test_a_run_on_two_processes_ends_with_one_set_of_rows(platform: Platform) -> None:
    """Ten seconds of it are the imports of torchrun and its two ranks."""
    run_id = submit(platform, 3)
    assert Supervision(platform.supervisor(kinds=KINDS)).is_over(120)
    assert platform.state(run_id) == "succeeded", (platform.directory(run_id) / "log.txt").read_text()
    command = (platform.directory(run_id) / "log.txt").read_text()
    assert "model: " in command and not platform.marked(run_id)
    with platform.database.read() as session:
        assert session.scalars(select(Metric.step).where(Metric.key == "train/loss")).all() == [1, 2, 3]


@pytest.mark.slow
def test_a_run_on_two_processes_is_paused_resumed_and_survives_the_loss_of_a_rank(platform: Platform) -> None:
    run_id = submit(platform, 3000)
    supervision = Supervision(platform.supervisor(kinds=KINDS))
    assert wait_until(lambda: platform.is_training(run_id), 90)
    with platform.database.write() as session:
        control.pause(session, run_id)
    assert supervision.is_over(20)
    log = (platform.directory(run_id) / "log.txt").read_text()
    assert (platform.state(run_id), platform.attempts(run_id)[0].outcome) == ("paused", "stopped"), log
    (checkpoint,) = platform.directory(run_id).glob("checkpoints/step-*")
    paused_at = read_manifest(checkpoint).step
    with platform.database.write() as session:
        control.resume(session, run_id)
    supervision = Supervision(platform.supervisor(kinds=KINDS))
    assert wait_until(lambda: platform.is_training(run_id, 2, paused_at + 1), 90)
    torchrun = platform.attempts(run_id)[1].pid
    ranks = [int(pid) for pid in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()]
    victim = next(pid for pid in ranks if b"keeper.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(victim, signal.SIGKILL)
    assert supervision.is_over(40)
    assert platform.attempts(run_id)[1].outcome == "infra"
    assert wait_until(lambda: not platform.marked(run_id), 5)
