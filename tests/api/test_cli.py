"""The command line against a live server, and the platform it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from api import cli
from api.client import Client
from api.commands.tables import safe
from api.local_platform import is_ready
from store.settings import Settings
from tests.api.conftest import Hand
from tests.api.test_jobs import evaluate

pytestmark = pytest.mark.filterwarnings("error")


Lco = Callable[..., tuple[int, str, str]]


def test_a_job_from_file_to_log(lco: Lco, tmp_path: Path, job: dict[str, Any], hand: Hand) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    code, out, _ = lco("submit", str(path), "--seeds", "3")
    job_id = out.strip()
    assert code == 0
    assert json.loads(lco("show", job_id)[1])["seeds"] == [3]
    assert job_id in lco("jobs")[1]
    assert lco("pause", job_id)[1] == f"{job_id} is paused\n"
    assert lco("resume", job_id)[1] == f"{job_id} is queued\n"
    hand.finish(hand.claim())
    code, out, _ = lco("watch", job_id)
    assert (code, out.splitlines()) == (0, ["warm-up seed 3: succeeded", f"{job_id} succeeded"])
    assert lco("logs", job_id, "-f") == (0, "", "")
    (run,) = json.loads(lco("runs", "--json")[1])
    assert run["job_id"] == job_id
    assert lco("workers")[1].splitlines()[1].split()[1] == "here"
    code, _, error = lco("cancel", job_id)
    assert (code, error) == (1, "lco: no run of the job can be cancelled\n")


def test_an_experiment_from_toml_to_its_table(
    lco: Lco, tmp_path: Path, experiment: dict[str, Any], hand: Hand, http: Any
) -> None:
    assert lco("results")[0] == 2
    experiment_id = evaluate(http, experiment, hand)
    assert experiment_id in lco("experiments")[1]
    assert lco("watch", experiment_id)[0] == 0
    lines = lco("results")[1].splitlines()
    assert lines[0].split() == ["method", "benchmark", "metric", "decoding", "mean", "%", "±", "std", "n", "missing"]
    assert lines[2].split() == ["warm-up", "sums", "pass@1", "t1.0", "25.00", "17.68", "2", "-"]
    table = json.loads(lco("results", "--experiment", experiment_id, "--json")[1])
    assert {row["decoding"] for row in table["rows"]} == {"greedy", "t1.0"}
    path = tmp_path / "experiment.toml"
    path.write_text(
        'name="e"\n[[jobs]]\nname="a"\nkind="sft"\nconfig.policy.name="llama"\nconfig.prompts.name="sums"\n'
    )
    code, out, _ = lco("submit", str(path), "--seeds", "4,5")
    assert code == 0
    runs = json.loads(lco("runs", "--experiment", out.strip(), "--json")[1])
    assert sorted(run["seed"] for run in runs) == [4, 5]
    code, _, error = lco("logs", out.strip())
    assert (code, "name a run" in error) == (2, True)
    code, _, error = lco("logs", runs[0]["job_id"])
    assert (code, "has 2 runs" in error) == (2, True)


def test_exit_code_is_the_jobs_outcome(lco: Lco, tmp_path: Path, job: dict[str, Any]) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    job_id = lco("submit", str(path))[1].strip()
    assert lco("cancel", job_id)[1] == f"{job_id} is cancelled\n"
    code, out, _ = lco("watch", job_id)
    assert (code, out.splitlines()[-1]) == (1, f"{job_id} cancelled")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("job.toml", "a =", "Invalid value"),
        ("job.json", "{", "Expecting"),
        ("job.json", "[]", "holds no job"),
        ("job.json", '{"a": NaN}', "not finite"),
        ("job.toml", "a = 2024-01-01", "date"),
        ("job.toml", None, "No such file"),
    ],
)
def test_wrong_file_is_told_in_a_line(lco: Lco, tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    code, out, error = lco("submit", str(path))
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_refusal_names_the_fields(lco: Lco, tmp_path: Path, job: dict[str, Any]) -> None:
    job["config"]["steps"] = "many"
    job["surprise"] = 1
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job))
    code, _, error = lco("submit", str(path))
    assert code == 1
    assert "/config/steps: " in error
    assert "/surprise: " in error
    assert "Traceback" not in error


def test_what_a_person_reads_while_things_are_under_way(
    lco: Lco, tmp_path: Path, experiment: dict[str, Any], hand: Hand
) -> None:
    assert lco("jobs")[1] == "(none)\n"
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(experiment))
    lco("submit", str(path))
    statuses = [line.split()[3] for line in lco("jobs")[1].splitlines()[1:]]
    assert set(statuses) == {"queued", "blocked"}
    claim = hand.claim()
    run_id = next(run["id"] for run in json.loads(lco("runs", "--json")[1]) if run["state"] in ("leased", "running"))
    code, out, _ = lco("cancel", run_id)
    assert (code, f"{run_id} is cancelling" in out, "lco watch" in out) == (0, True, True), (out, claim)


def test_keys_and_links(lco: Lco) -> None:
    code, key, _ = lco("keys", "create", "ci", "--scope", "read", "--days", "3")
    assert (code, key.startswith("lco_sk_")) == (0, True)
    listed = json.loads(lco("keys", "list", "--json")[1])
    assert [item["name"] for item in listed] == ["ci", "test"]
    assert lco("keys", "revoke", listed[0]["id"])[1] == f"{listed[0]['id']} is revoked\n"
    assert "/login?link=" in lco("login-link")[1]


def test_without_a_platform_a_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LCO_DATA_DIR", str(tmp_path))
    assert cli.main(["jobs"]) == 1
    assert "start `lco up`" in capsys.readouterr().err
    monkeypatch.setenv("LCO_PORT", "many")
    assert cli.main(["jobs"]) == 2
    assert "LCO_PORT" in capsys.readouterr().err
    monkeypatch.setenv("LCO_PORT", "0")
    monkeypatch.setenv("LCO_SLOT", "2")
    assert cli.main(["jobs"]) == 2
    assert "LCO_SLOT is no setting" in capsys.readouterr().err


def test_log_of_a_hostile_run_cannot_steer_the_terminal() -> None:
    assert safe("a\x1b[2Jb\r\n\tc\x07\x9b") == "a\ufffd[2Jb\ufffd\n\tc\ufffd\ufffd"


def test_models_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LCO_DATA_DIR", str(tmp_path))
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert cli.main(["models", "list", "--local", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["model:tiny"]


def test_help_is_quick_because_it_imports_nothing() -> None:
    code = (
        "import sys, api.cli\n"
        "try: api.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('fastapi', 'pydantic', 'sqlalchemy', 'httpx2') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in ("up", "submit", "jobs", "results", "train", "models", "keys"):
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize("command", ["train", "sft", "pairs", "dpo", "evaluate"])
def test_stage_becomes_the_process_that_a_job_runs(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr("api.commands.models.os.execv", lambda *arguments: became.append(arguments))
    cli.main([command, "config.toml", "run", "--resume-from", "old"])
    module = {"evaluate": "evaluation.run"}.get(command, f"lco.{command}")
    expected = [sys.executable, "-m", module, "config.toml", "run", "--resume-from", "old"]
    assert became == [(sys.executable, expected)]


@pytest.mark.parametrize("arguments", [["model", "--benchmarks", "sums"], ["--help"], []])
def test_evaluate_with_options_becomes_their_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr("api.commands.models.os.execv", lambda *arguments: became.append(arguments))
    cli.main(["evaluate", *arguments])
    assert became == [(sys.executable, [sys.executable, "-m", "evaluation.command", *arguments])]


@pytest.mark.parametrize("name", ["dynamics", "convexity", "theory"])
def test_an_analysis_becomes_the_process_that_does_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr("api.commands.models.os.execv", lambda *arguments: became.append(arguments))
    assert cli.main(["analyze", name, "out", "--seed", "3"]) == 0
    assert became == [(sys.executable, [sys.executable, "-m", f"lco.analysis.{name}", "out", "--seed", "3"])]


def test_an_unknown_analysis_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["analyze"], ["analyze", "magic"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2
    assert "dynamics" in capsys.readouterr().err


@pytest.fixture
def platform(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`lco up` in a directory of its own."""
    environment = {**os.environ, "LCO_DATA_DIR": str(tmp_path / "var"), "LCO_PORT": "0"}
    command = [sys.executable, "-m", "api.cli", "up", "--slots", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        try:
            yield up
        finally:
            up.terminate()
            up.communicate(timeout=30)


def test_lco_up_starts_restarts_and_stops_the_platform(platform: "subprocess.Popen[str]", tmp_path: Path) -> None:
    assert platform.stdout is not None
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(platform.stdout.readline())
        assert lines[-1], lines
    output = "".join(lines)
    key = (tmp_path / "var" / "admin-key").read_text().strip()
    assert output.count(key) == 1
    assert "/login?link=" in output
    settings = Settings(data_dir=tmp_path / "var")
    with Client(settings=settings) as client:
        url = client.url
        (worker,) = client.workers()
        assert (worker.slots, worker.dispatcher, worker.is_alive) == (1, "local", True)
        processes = {p.cmdline()[-1]: p for p in psutil.Process(platform.pid).children()}
        processes["api.serve"].kill()
        assert "api ended with status -9" in platform.stdout.readline()
        while "started api again" not in platform.stdout.readline():
            pass
        while not is_ready(url):  # at the same address; the test's timeout bounds it
            time.sleep(0.1)
        assert list(client.jobs()) == []
    assert (tmp_path / "var" / "api-url").read_text().strip() == url
    second = subprocess.run(
        [sys.executable, "-m", "api.cli", "up"],
        env={**os.environ, "LCO_DATA_DIR": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (second.returncode, "runs in" in second.stderr) == (2, True)
    for path in (tmp_path / "var").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    everyone = psutil.Process(platform.pid).children(recursive=True)
    assert len(everyone) >= 2
    began = time.monotonic()
    platform.send_signal(signal.SIGTERM)
    assert platform.wait(30) == 0
    assert time.monotonic() - began < 10
    _, alive = psutil.wait_procs(everyone, timeout=5)
    assert not alive


def test_projects_and_their_keys_and_who_changed_what(lco: Lco) -> None:
    code, out, _ = lco("projects", "create", "blue", "--running-runs", "2", "--judge-spend", "10")
    identifier = out.strip()
    assert code == 0 and identifier.startswith("prj_")
    assert json.loads(lco("projects", "set", "blue", "--gpu-slots", "4", "--running-runs", "none")[1])["quotas"] == {
        "max_gpu_slots": 4,
        "max_running_runs": None,
        "max_storage_bytes": None,
        "max_judge_spend": 10.0,
    }
    lines = lco("projects", "list")[1].splitlines()
    assert [line.split()[1] for line in lines] == ["name", "blue", "default"]
    assert "0 of 4" in lines[1] and "0.00 of 10.00" in lines[1]
    assert lco("keys", "create", "theirs", "--project", "blue")[1].startswith("lco_sk_")
    assert [line.split()[2] for line in lco("keys", "list")[1].splitlines()][:2] == ["project", "blue"]
    assert lco("projects", "archive", "blue")[1] == "blue is archived\n"
    assert lco("projects", "archive", identifier, "--undo")[1] == "blue is active\n"
    assert json.loads(lco("projects", "show", "blue")[1])["archived_at"] is None
    actions = [line.split()[3] for line in lco("audit", "--object", identifier)[1].splitlines()[1:]]
    assert actions == ["projects.unarchive", "projects.archive", "projects.change", "projects.create"]
    assert json.loads(lco("audit", "--action", "projects.change", "--json")[1])[0]["details"]["max_gpu_slots"] == 4
    code, _, error = lco("projects", "show", "green")
    assert (code, "there is no project 'green'" in error) == (2, True)
    assert lco("projects", "set", "blue")[0] == 2
