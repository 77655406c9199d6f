"""Tests of `make demo` as a person meets it: what it prints, how it ends, that it continues after an interruption."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.demo_report import stage_seconds
from api.local_platform import is_ready
from api.progress import Progress, print_table
from api.result_schemas import TableRow
from api.schemas import ExperimentRead, RunRead

ROOT = Path(__file__).parents[1]


def experiment(state: str, **run: Any) -> ExperimentRead:
    """An experiment with one job of one run."""
    progress = {"step": 3, "total": 9, "message": "sampling", "updated_at": None}
    summary = {
        **{"id": "run_1", "seed": 0, "state": state, "desired": "run", "status_reason": "", "attempt": 1},
        **{"progress": progress, "started_at": None, "finished_at": None, **run},
    }
    job = {
        "id": "job_1",
        "name": "sft",
        "kind": "sft",
        "method": "sft",
        "status": state,
        "needs": [],
        "runs": [summary],
    }
    return ExperimentRead.model_validate(
        {
            **{"id": "exp_1", "name": "demo", "description": "", "status": "running", "num_runs": 1, "num_finished": 0},
            **{"num_failed": 0, "jobs": [job], "metadata": {}, "created_at": "2026-01-01T00:00:00Z"},
        }
    )


def test_a_log_gets_one_line_per_change_and_none_for_waiting() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    for state in ("blocked", "queued", "leased", "running", "running", "succeeded", "succeeded"):
        progress.show(experiment(state))
    lines = stream.getvalue().splitlines()
    assert [line.split("seed 0")[1].split() for line in lines] == [
        ["running", "step", "3", "of", "9", "(sampling)"],
        ["succeeded"],
    ]


def test_a_second_attempt_is_a_change() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.show(experiment("running"))
    progress.show(experiment("running", attempt=2))
    assert "attempt 2" in stream.getvalue().splitlines()[1]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_block_is_drawn_over_itself() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.show(experiment("running"))
    progress.show(experiment("running"))
    assert stream.getvalue().count("\x1b[2F\x1b[J") == 1
    progress.close()
    assert stream.getvalue().endswith("\x1b[2F\x1b[J")


def test_a_message_cannot_control_the_terminal() -> None:
    stream = io.StringIO()
    evil = {"step": 1, "total": 2, "message": "\x1b]0;gotcha\x07", "updated_at": None}
    Progress(stream).show(experiment("running", progress=evil))
    assert "\x1b" not in stream.getvalue()


def row(method: str, decoding: str, mean: float | None, std: float | None, missing: list[int]) -> TableRow:
    """A cell of a table of results."""
    return TableRow(
        **{
            "method": method,
            "benchmark": "sums",
            "metric": "pass@1",
            "decoding": decoding,
            "configuration": "",
            "unit": "fraction",
            "mean": mean,
            "std": std,
        },
        **{
            "n": 2 - len(missing),
            "missing_seeds": missing,
            "std_over_eval_seeds": None,
            "num_unscored": 0,
            "num_examples": 10,
            "per_seed": [],
        },
    )


def test_the_table_shows_spread_and_names_missing_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        [
            row("sft", "t1.0", 0.25, 0.013, []),
            row("sft", "greedy", 0.5, None, [1]),
            row("rm", "t1.0", None, None, [0, 1]),
        ]
    )
    shown = capsys.readouterr().out.splitlines()[3:]
    assert shown[0].split() == ["sums", "pass@1", "t1.0", "greedy"]
    assert shown[1].split() == ["sft", "25.0", "±", "1.3", "(2)", "50.0", "(1,", "missing", "1)"]
    assert shown[2].split() == ["rm", "no", "value"]


def test_stages_are_timed_from_first_start_to_last_end() -> None:
    def run(job: str, start: int, end: int) -> RunRead:
        return RunRead.model_construct(job_name=job, started_at=_at(start), finished_at=_at(end))

    runs = [run("sft", 0, 10), run("sft", 5, 20), run("lco", 20, 50)]
    assert stage_seconds(runs) == {"sft": 20, "lco": 30, "total": 50}
    assert stage_seconds([]) == {}


def _at(second: int) -> datetime:
    return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)


@contextmanager
def demo_of(directory: Path, jobs: list[dict[str, Any]]) -> "Iterator[subprocess.Popen[str]]":
    """The demo as a process, with an experiment of these jobs; its platform ends with it."""
    document = directory / "experiment.toml"
    lines = ['name = "test"']
    for job in jobs:
        lines += ["[[jobs]]", *(f"{name} = {_toml(value)}" for name, value in job.items())]
    document.write_text("\n".join(lines))
    demo = subprocess.Popen(
        [
            *(sys.executable, "-m", "api.demo", "--detach", "--experiment", str(document)),
            *("--data-dir", str(directory / "var"), "--report", str(directory / "report.json")),
        ],
        cwd=ROOT,
        env={**os.environ, "LCO_PORT": "0", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        try:
            yield demo
        finally:
            demo.kill()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def test_a_failed_job_is_explained_and_fails_the_demo(tmp_path: Path, tiny_experiment: dict[str, Any]) -> None:
    warm_up = json.loads(json.dumps(tiny_experiment["jobs"][0]))
    warm_up["config"]["prompts"]["num_problems"] = 1000  # more than there are
    with demo_of(tmp_path, [warm_up]) as demo:
        shown, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1, shown
    assert "sft, seed 0" in shown
    assert "fewer than 1000 problems" in shown
    assert not (tmp_path / "report.json").exists()


def test_an_interrupted_demo_stops_its_platform_and_continues_the_next_time(
    tmp_path: Path, tiny_experiment: dict[str, Any]
) -> None:
    warm_up = json.loads(json.dumps(tiny_experiment["jobs"][0]))
    shown = []
    with demo_of(tmp_path, [warm_up]) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            shown.append(line)
            if "seed 0" in line:
                break
        demo.send_signal(signal.SIGINT)
        rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 130, "".join(shown) + rest
    assert "`make demo` continues where it was" in rest
    url = (tmp_path / "var" / "api-url").read_text().strip()
    deadline = time.monotonic() + 10
    while is_ready(url):
        assert time.monotonic() < deadline, "the platform outlived the demo"
        time.sleep(0.1)

    with demo_of(tmp_path, [warm_up]) as again:
        shown_again, _ = again.communicate(timeout=120)
    assert again.returncode == 0, shown_again
    assert "continuing exp_" in shown_again
    assert json.loads((tmp_path / "report.json").read_text())["seconds"].keys() == {"sft", "total"}
