"""kill -9 of the trainer, the supervisor and the API, each at three stages of an experiment: the numbers stay the same.

Long: `make test-faults`. `lco up` starts the supervisor and the API again; the supervisor starts the run again.
"""

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.calls import base
from api.client import Client
from api.demo_report import write_report
from api.local_platform import LocalPlatform
from api.schemas import RunRead
from api.transport import ApiFailure
from store.settings import Settings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]

STAGES = ("sft", "rm", "lco")
VICTIMS = ("trainer", "supervisor", "api")
_ORPHAN_SECONDS = 5.0


@pytest.fixture(scope="module")
def experiment(tiny_experiment: dict[str, Any]) -> dict[str, Any]:
    """The tiny experiment with stages long enough to be interrupted in the middle."""
    document = copy.deepcopy(tiny_experiment)
    by_name = {job["name"]: job["config"] for job in document["jobs"]}
    by_name["sft"] |= {"steps": 200, "checkpoint_every_steps": 10}
    by_name["rm"] |= {"epochs": 20, "checkpoint_every_steps": 2}
    by_name["lco"] |= {"iterations": 15}
    return document


Played = tuple[list[Any], list[Any], dict[str, bytes], dict[str, RunRead]]


def play(directory: Path, experiment: dict[str, Any], disturb: Callable[[LocalPlatform, Client, str], None]) -> Played:
    """Rows, table and completions of the experiment, and its runs by the name of their job."""
    settings = Settings(data_dir=directory / "var")
    environment = {"LCO_PORT": "0", "LCO_LEASE_SECONDS": "4", "LCO_BEAT_SECONDS": "0.5", "LCO_POLL_SECONDS": "0.05"}
    with (
        LocalPlatform(settings.data_dir, environment=environment) as platform,
        Client(platform.url, settings=settings) as client,
    ):
        submitted = client.submit_experiment(experiment).id
        disturb(platform, client, submitted)
        assert client.wait(submitted, timeout_seconds=900, poll_seconds=0.5).status == "succeeded"
        report = write_report(client, submitted, directory / "report.json")
        runs = {run.job_name: run for run in client.runs(experiment=submitted)}
    paths = {row.pop("completions") for row in report["rows"]}
    completions = {Path(path).name: (directory / path).read_bytes() for path in paths}
    return sorted(report["rows"], key=json.dumps), report["table"], completions, runs


@pytest.fixture(scope="module")
def undisturbed(experiment: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The experiment without any fault."""
    return play(tmp_path_factory.mktemp("undisturbed"), experiment, lambda *_: None)


def victim_of(platform: LocalPlatform, victim: str) -> psutil.Process:
    """The process to kill."""
    marks = {"trainer": " -m lco.", "supervisor": " -m worker.local", "api": " -m api.serve"}
    up = psutil.Process(platform.children["up"].process.pid)
    # The watcher beside a trainer has the same command line; the trainer is the older one.
    found = [process for process in up.children(recursive=True) if marks[victim] in " ".join(process.cmdline())]
    return min(found, key=lambda process: process.create_time())


def wait_for_step(client: Client, experiment: str, job: str) -> None:
    """Until the job's run has taken a step and is not at its end."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            [run] = [run for run in client.runs(experiment=experiment) if run.job_name == job]
        except ApiFailure as error:  # the killed API comes up again
            assert base.is_outage(error), error
            continue
        assert run.state not in ("succeeded", "failed"), f"{job} was too quick to be interrupted"
        if run.state == "running" and run.progress.step >= 1:
            return
        time.sleep(0.02)
    raise AssertionError(f"{job} took no step")


@pytest.mark.parametrize("victim", VICTIMS)
def test_kill_9_at_three_stages_changes_no_number(
    victim: str, experiment: dict[str, Any], undisturbed: Played, tmp_path: Path
) -> None:
    def disturb(platform: LocalPlatform, client: Client, submitted: str) -> None:
        for stage in STAGES:
            wait_for_step(client, submitted, stage)
            process = victim_of(platform, victim)
            left_behind = process.children(recursive=True)
            process.kill()
            if victim == "supervisor":
                _, alive = psutil.wait_procs(left_behind, timeout=_ORPHAN_SECONDS)
                assert not [orphan for orphan in alive if orphan.status() != psutil.STATUS_ZOMBIE], "an orphan"

    rows, table, completions, runs = play(tmp_path, experiment, disturb)
    assert rows == undisturbed[0]
    assert table == undisturbed[1]
    assert completions == undisturbed[2]
    if victim != "api":
        assert {stage: runs[stage].attempt > 1 for stage in STAGES} == dict.fromkeys(STAGES, True)
