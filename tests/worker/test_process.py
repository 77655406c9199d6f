import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from worker import keeper
from worker.process import Command, RunProcess

SUPERVISOR = """
import sys, time
from pathlib import Path
from worker.process import Command, RunProcess
config, directory, mark = sys.argv[1:]
asked = Command(module="tests.worker.stand_in", config=Path(config), directory=Path(directory), mark=mark)
process = RunProcess(asked)
print(process.pid, flush=True)
time.sleep(600)
"""


def command(tmp_path: Path, **behaviour: object) -> Command:
    directory = tmp_path / "1"
    directory.mkdir()
    config = directory / "config.json"
    config.write_text(json.dumps({"seed": 0, "steps": 100_000, "policy": {"characters": json.dumps(behaviour)}}))
    return Command(module="tests.worker.stand_in", config=config, directory=directory, mark=f"{tmp_path}/1")


def wait_until(condition, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(done)


def is_training(directory: Path) -> bool:
    return (directory / "progress.jsonl").exists()


def test_sigterm_lets_the_run_checkpoint(tmp_path: Path) -> None:
    process = RunProcess(asked := command(tmp_path))
    assert wait_until(lambda: is_training(asked.directory))
    process.terminate()
    assert process.wait(5) == 75
    assert list(asked.directory.glob("checkpoints/step-*/manifest.json"))


def test_kill_ends_a_deaf_run_and_its_stray_in_another_session(tmp_path: Path) -> None:
    process = RunProcess(asked := command(tmp_path, deaf=True, stray=True))
    assert wait_until(lambda: is_training(asked.directory))
    assert len(keeper.marked(asked.mark)) == 3, "the run, its watcher, its stray"
    process.terminate()
    assert process.wait(0.3) is None
    assert process.kill() == -signal.SIGKILL
    assert wait_until(lambda: not keeper.marked(asked.mark))


def test_an_ended_run_leaves_no_stray_and_no_open_file(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    process = RunProcess(asked := command(tmp_path, stray=True, fail={"exit_code": 3}))
    assert process.wait(5) == 3
    assert wait_until(lambda: not keeper.marked(asked.mark))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("behaviour", [{}, {"deaf": True, "stray": True}], ids=["listens", "deaf"])
def test_no_orphan_five_seconds_after_the_supervisors_kill(tmp_path: Path, behaviour: dict[str, bool]) -> None:
    asked = command(tmp_path, **behaviour)
    arguments = [sys.executable, "-c", SUPERVISOR, str(asked.config), str(asked.directory), asked.mark]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout and int(supervisor.stdout.readline())
        assert wait_until(lambda: is_training(asked.directory))
        supervisor.kill()
    assert wait_until(lambda: not keeper.marked(asked.mark), 5)
    if not behaviour:
        assert list(asked.directory.glob("checkpoints/step-*/manifest.json")), "it checkpointed first"


def test_a_killed_watcher_does_not_matter_to_a_run_that_listens(tmp_path: Path) -> None:
    process = RunProcess(asked := command(tmp_path))
    assert wait_until(lambda: is_training(asked.directory))
    [watcher] = [pid for pid in keeper.marked(asked.mark) if pid != process.pid]
    os.kill(watcher, signal.SIGKILL)
    os.close(process._write_end)
    process._write_end = os.open(os.devnull, os.O_RDONLY)
    assert process.wait(5) == 75


def test_no_credential_reaches_a_run(tmp_path: Path) -> None:
    secrets = {"LCO_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
    outer = {"PATH": "/bin", "LC_ALL": "C", "OMP_NUM_THREADS": "3", **secrets}
    seen = command(tmp_path).environment(7, outer)
    assert seen == {
        "PATH": "/bin", "LC_ALL": "C", "OMP_NUM_THREADS": "3", "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "", "LCO_PARENT_FD": "7", "LCO_ATTEMPT": f"{tmp_path}/1",
    }  # fmt: skip


def test_only_the_keys_that_its_endpoints_may_use_reach_a_run(tmp_path: Path) -> None:
    asked = replace(command(tmp_path), keys=("OPENAI_API_KEY", "ABSENT_KEY"))
    outer = {"OPENAI_API_KEY": "sk-1", "AZURE_OPENAI_API_KEY": "sk-2"}
    seen = asked.environment(7, outer)
    assert seen["OPENAI_API_KEY"] == "sk-1" and not {"AZURE_OPENAI_API_KEY", "ABSENT_KEY"} & seen.keys()


def test_several_gpus_start_under_torchrun(tmp_path: Path) -> None:
    paths = {"config": Path("c.json"), "directory": Path("d"), "resume_from": (Path("b"), Path("a"))}
    asked = Command(module="lco.train", gpus=(2, 5), num_processes=2, mark="m", **paths)
    expected = "-m torch.distributed.run --standalone --nproc-per-node 2 -m lco.train c.json d --resume-from b a"
    assert asked.arguments()[1:] == expected.split()
    environment = asked.environment(3, {})
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,5"
    assert "LCO_PARENT_FD" not in environment, "ranks do not inherit it"


@pytest.mark.slow
def test_no_rank_of_torchrun_outlives_its_supervisor(tmp_path: Path) -> None:
    asked = command(tmp_path, every=1_000_000)
    code = SUPERVISOR.replace("mark=mark)", "mark=mark, num_processes=2)")
    arguments = [sys.executable, "-c", code, str(asked.config), str(asked.directory), asked.mark]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as supervisor:
        assert wait_until(lambda: is_training(asked.directory), 90)
        assert len(keeper.marked(asked.mark)) == 4, "torchrun, its two ranks, the watcher"
        supervisor.kill()
    assert wait_until(lambda: not keeper.marked(asked.mark), 5)
    assert list(asked.directory.glob("checkpoints/step-*/manifest.json")), "the ranks checkpointed first"
