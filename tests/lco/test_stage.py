"""A stage as a process: exit codes, error.json, progress lines, orders to stop."""

import json
import math
import os
import signal
import time
from contextlib import closing

import pytest

from lco.config import Config
from lco.stage import (
    EXIT_STOPPED,
    EXIT_USER,
    Collapsed,
    NonFinite,
    Paused,
    Stage,
    Stopped,
    classify,
    read_config,
    run_stage,
)
from tests.lco.launcher import records


class Tiny(Config):
    """A stage of the test's own."""

    number: int = 1
    rate: float = 0.5


@pytest.fixture(autouse=True)
def _signals():
    """`run_stage` sets handlers, as a process's main module may."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path):
    """Runs a body as a stage; gives the exit status and error.json's contents."""
    (tmp_path / "config.json").write_text('{"number": 2}')

    def start(body, config="config.json"):
        status = run_stage(Tiny, body, [str(tmp_path / config), str(tmp_path / "run")])
        error = tmp_path / "run" / "error.json"
        return status, json.loads(error.read_text()) if error.exists() else None

    return start


def raising(error):
    def body(config, stage):
        raise error

    return body


def test_a_body_that_returns_ends_with_0(run):
    seen = []
    assert run(lambda config, stage: seen.append((config.number, stage.run_dir.name))) == (0, None)
    assert seen == [(2, "run")]


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (ValueError("prompts: none"), 2, "user"),
        (NonFinite("three steps"), 1, "non_finite"),
        (Collapsed("the mean reward fell"), 1, "collapsed"),
        (Paused("the mean reward fell"), EXIT_STOPPED, "paused"),
        (MemoryError(), 1, "oom"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            1,
            "oom",
        ),
        (RuntimeError("shape"), 1, "infra"),
        (KeyError("weights"), 1, "infra"),
        (OSError(28, "No space left on device"), 1, "infra"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_is_classified_and_told_in_error_json(run, error, status, outcome):
    found, document = run(raising(error))
    assert found == status
    assert (document["outcome"], document["code"]) == (outcome, type(error).__name__)
    assert document["message"].startswith(str(error) or type(error).__name__)


def test_a_gpus_out_of_memory_error_is_known_by_its_name():
    import torch

    assert classify(torch.OutOfMemoryError("CUDA out of memory")) == "oom"


def test_several_processes_are_refused_where_they_would_do_the_same(run, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, error = run(lambda config, stage: None)
    assert (status, error["outcome"]) == (EXIT_USER, "user")
    assert error["message"].startswith("resources: ")


def test_a_long_message_is_cut(run):
    assert len(run(raising(ValueError("x" * 100_000)))[1]["message"]) == 4000


def test_being_stopped_ends_with_75_and_is_no_error(run):
    assert run(raising(Stopped())) == (EXIT_STOPPED, None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_body_to_stop(run, number):
    def body(config, stage):
        assert not stage.is_stopping
        os.kill(os.getpid(), number)
        stage.check()

    assert run(body) == (EXIT_STOPPED, None)


def test_an_error_of_an_earlier_attempt_in_the_same_directory_does_not_outlive_it(run):
    assert run(raising(ValueError("first")))[0] == EXIT_USER
    assert run(lambda config, stage: None) == (0, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "configuration"),
        ("config.json", '{"number": "2"}', "number: Input should be a valid integer"),
        ("config.json", '{"numbre": 2}', "numbre: Extra inputs are not permitted"),
        ("config.json", '{"number": 2, "rate": "x"}', "rate: Input should be a valid number"),
        ("config.json", '{"rate": NaN}', "rate: Input should be a finite number"),
        ("config.toml", "number = ", "config.toml"),
        ("config.toml", "number = 1979-05-27", "config.toml"),
        ("config.toml", "rate = inf", "rate: Input should be a finite number"),
        ("absent.json", None, "absent.json"),
    ],
)
def test_a_wrong_configuration_is_the_users_error_and_names_the_field(run, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    status, document = run(lambda config, stage: None, name)
    assert (status, document["outcome"]) == (EXIT_USER, "user")
    assert message in document["message"]


def test_json_and_toml_say_the_same(tmp_path):
    (tmp_path / "a.json").write_text('{"number": 3, "rate": 1}')
    (tmp_path / "a.toml").write_text("number = 3\nrate = 1\n")
    assert read_config(tmp_path / "a.json", Tiny) == read_config(tmp_path / "a.toml", Tiny) == Tiny(number=3, rate=1.0)


def test_progress_is_one_whole_json_object_a_line(stage, capsys):
    stage.progress(1, 3, "sampling\nmore")
    stage.metrics(1, {"train/loss": 0.5, "train/bad": math.nan, "train/worse": math.inf})
    stage.event("warning", "ünïcode \x00")
    assert records(stage.run_dir) == [
        {"type": "progress", "step": 1, "total": 3, "message": "sampling\nmore"},
        {"type": "metrics", "step": 1, "values": {"train/loss": 0.5, "train/bad": None, "train/worse": None}},
        {"type": "event", "level": "warning", "message": "ünïcode \x00"},
    ]
    assert "loss 0.5" in capsys.readouterr().out


def test_a_second_attempt_in_the_same_directory_appends_its_progress(tmp_path):
    for number in (1, 2):
        with closing(Stage(tmp_path, [])) as stage:
            stage.progress(number, 2, "x")
    assert [record["step"] for record in records(tmp_path)] == [1, 2]


# --- real processes

ENDLESS = {
    "policy": {"name": "llama", "hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 1},
    "prompts": {"name": "sums", "num_problems": 20},
    "steps": 100_000,
    "batch_size": 2,
    "device": "cpu",
}


def test_the_end_of_the_parents_pipe_saves_the_state_and_ends_the_process(launcher, tmp_path):
    process = launcher.start("lco.sft", ENDLESS, tmp_path / "run")
    process.wait_for("metrics")
    started = time.monotonic()
    process.leave()
    assert process.wait() == EXIT_STOPPED
    assert time.monotonic() - started < 5
    assert "the supervisor is gone" in process.log.read_text()
    assert records(tmp_path / "run")[-1]["type"] == "checkpoint"


def test_exit_statuses_reach_the_shell(launcher, tmp_path):
    assert launcher.run("lco.sft", ENDLESS | {"steps": 2}, tmp_path / "done") == 0
    assert launcher.run("lco.sft", ENDLESS | {"steps": 0}, tmp_path / "user") == EXIT_USER
    assert "steps" in json.loads((tmp_path / "user/error.json").read_text())["message"]
    assert not (tmp_path / "done/error.json").exists()
    process = launcher.start("lco.sft", ENDLESS, tmp_path / "stopped")
    process.wait_for("metrics")
    process.signal(signal.SIGTERM)
    assert process.wait() == EXIT_STOPPED
    (tmp_path / "blocked").write_text("a file where the run directory should be")
    assert launcher.run("lco.sft", ENDLESS, tmp_path / "blocked") == 1
