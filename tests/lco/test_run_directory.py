"""A run directory that is started again: finished, unfinished, with the same configuration or another."""

import json
import re
import signal

import pytest

from lco.config import Config, ModelSource
from lco.manifest import write_manifest
from lco.run_directory import CONFIGURATION, write_error
from lco.safety import check_is_safe
from lco.stage import EXIT_USER, NonFinite, run_stage


class Inner(Config):
    """A part of the configuration."""

    beta: float = 0.1


class Small(Config):
    """A stage of the test's own."""

    steps: int = 1
    inner: Inner = Inner()
    policy: ModelSource = "somewhere"
    validation: Inner | None = None


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run(tmp_path):
    """Starts a stage with some fields; gives exit status, the error's message and how often the body has run."""
    bodies = []

    def start(body=lambda config, stage: None, **fields):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(fields))

        def counted(config, stage):
            bodies.append(config)
            body(config, stage)

        status = run_stage(Small, counted, [str(path), str(tmp_path / "run")])
        error = tmp_path / "run" / "error.json"
        return status, json.loads(error.read_text())["message"] if error.exists() else None, len(bodies)

    return start


def publishing(config, stage):
    (stage.run_dir / "model").mkdir()
    (stage.run_dir / "model" / "weights").write_text("1")
    write_manifest(stage.run_dir, step=1, outputs={"model": "model"}, include=["model"])


def checkpointing(config, stage):
    (stage.run_dir / "checkpoints").mkdir()
    raise RuntimeError("killed")


def test_a_stage_ends_by_saying_where_its_output_is(run, tmp_path, capsys):
    assert run(publishing) == (0, None, 1)
    assert capsys.readouterr().out.splitlines()[-1] == f"model: {tmp_path / 'run' / 'model'}"


def test_a_finished_run_is_not_run_again(run, tmp_path, capsys):
    run(publishing)
    capsys.readouterr()
    assert run(publishing) == (0, None, 1)
    assert capsys.readouterr().out.splitlines() == [
        "this run is finished: nothing is left to do",
        f"model: {tmp_path / 'run' / 'model'}",
    ]


def test_a_finished_run_whose_files_were_damaged_is_refused_by_their_name(run, tmp_path):
    run(publishing)
    (tmp_path / "run/model/weights").write_text("2")
    status, message, _ = run(publishing)
    assert (status, "model/weights differs" in message) == (EXIT_USER, True)


@pytest.mark.parametrize("body", [publishing, checkpointing])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 2}, "steps: .* holds work with 1, not 2"),
        ({"inner": {"beta": 0.3}}, r"inner\.beta: .* holds work with 0\.1, not 0\.3"),
        ({"validation": {}}, r"validation: .* holds work with null, not \{"),
    ],
)
def test_another_configuration_in_a_directory_with_work_is_refused_by_the_fields_name(run, body, fields, message):
    run(body)
    status, found, count = run(publishing, **fields)
    assert (status, count) == (EXIT_USER, 1)
    assert re.match(message, found), found


def test_the_same_configuration_spelled_differently_is_the_same(run):
    run(checkpointing)
    assert run(inner={"beta": 0.1}, steps=1) == (0, None, 2)


def test_a_start_that_left_no_work_binds_nobody(run):
    def refusing(config, stage):
        raise ValueError("policy: not there")

    assert run(refusing, steps=5)[0] == EXIT_USER
    assert run(publishing, steps=2) == (0, None, 2)


def test_the_configuration_is_kept_with_every_default(run, tmp_path):
    run(steps=3)
    kept = json.loads((tmp_path / "run" / CONFIGURATION).read_text())
    assert kept == {"steps": 3, "inner": {"beta": 0.1}, "policy": "somewhere", "validation": None}


@pytest.mark.parametrize(
    "name", ["job:warm-up", "model:smollm", "data:a/b.jsonl", "ckpt_" + "0" * 26, "job_" + "a" * 26]
)
def test_a_name_that_only_the_platform_resolves_is_told_apart_from_a_path(run, name):
    status, message, count = run(policy=name)
    assert (status, count) == (EXIT_USER, 0)
    assert message.startswith(f"policy: {name!r} is a name that the platform resolves")


def test_the_first_error_of_several_processes_stays(tmp_path):
    write_error(tmp_path, {"message": "out of memory"})
    write_error(tmp_path, {"message": "a peer is gone"})
    assert json.loads((tmp_path / "error.json").read_text()) == {"message": "out of memory"}
    assert [path.name for path in tmp_path.iterdir()] == ["error.json"], "nothing temporary stays"


def test_a_run_directory_where_a_model_is_wanted_is_told_where_its_model_is(tmp_path):
    (tmp_path / "progress.jsonl").touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="the directory of a run; it has made no model"):
        check_is_safe(tmp_path)
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match=f"the directory of a run; its model is {tmp_path}/model"):
        check_is_safe(tmp_path)


def test_a_run_that_was_stopped_by_numbers_names_its_last_good_checkpoint(run, tmp_path):
    def failing(config, stage):
        raise NonFinite("3 steps in a row")

    _, message, _ = run(failing)
    assert message == "3 steps in a row; last good checkpoint: none, the run begins anew"
    good = tmp_path / "run/checkpoints/step-000004"
    good.mkdir(parents=True)
    write_manifest(good, step=4, outputs={}, include=[])
    assert run(failing)[1] == f"3 steps in a row; last good checkpoint: {good}"
