"""A run stopped or killed anywhere and resumed is bit for bit the uninterrupted run: on a CPU, in real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lco.manifest import read_manifest
from lco.stage import EXIT_STOPPED
from tests.lco.launcher import ROOT, Launcher, environment, metrics, records

pytestmark = pytest.mark.timeout(600)

MODEL = {
    "name": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "max_positions": 64,
}
SUMS = {"name": "sums", "num_problems": 60, "num_terms": 3}
STAGE = {"device": "cpu", "seed": 3, "checkpoint_every_steps": 3, "micro_batch_size": 5}
OPTIMIZER = {"learning_rate": 0.003, "schedule": "cosine", "warmup_steps": 2}


@pytest.fixture(scope="module")
def configs(tiny_model, tiny_reward_model, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """The configuration of a run of each training stage; the loop has several steps inside an iteration."""
    pairs = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": f"{n}+{n % 7}=", "chosen": f"{n}+{n % 7}={n + n % 7}", "rejected": f"={n % 5}"} for n in range(40)
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "lco.train": STAGE
        | {
            "algorithm": {"name": "lco-kld", "advantage": {"name": "dpo", "reward_model": str(tiny_reward_model)}},
            "policy": str(tiny_model),
            "prompts": SUMS,
            "reward": {"extraction": "last-equals"},
            "sampling": {"max_tokens": 10},
            "optimizer": OPTIMIZER,
            "prompts_per_iteration": 12,
            "iterations": 6,
            "inner_epochs": 2,
            "steps_per_epoch": 2,
            "validation": {"prompts": SUMS | {"split": "test", "num_problems": 4}, "max_tokens": 8, "every_steps": 7},
        },
        "lco.sft": STAGE | {"policy": MODEL, "prompts": SUMS, "steps": 80, "batch_size": 12, "optimizer": OPTIMIZER},
        "lco.dpo": STAGE
        | {
            "policy": str(tiny_model),
            "pairs": str(pairs),
            "epochs": 13,
            "batch_size": 6,
            "nll_weight": 0.1,
            "optimizer": OPTIMIZER,
        },
    }


@pytest.fixture(scope="module")
def uninterrupted(configs, launcher: Launcher, tmp_path_factory) -> dict[str, Path]:
    """The run directory of each stage's uninterrupted run; the loop's is started as a person would."""
    directories = {module: tmp_path_factory.mktemp("uninterrupted") for module in configs}
    for module, config in configs.items():
        if module == "lco.train":
            path = directories[module] / "config.json"
            path.write_text(json.dumps(config))
            command = [sys.executable, "-m", module, str(path), str(directories[module])]
            finished = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
            assert finished.returncode == 0, finished.stderr
        else:
            assert launcher.run(module, config, directories[module]) == 0
    return directories


def weights(run_dir: Path) -> dict[str, bytes]:
    """The published files of a model and, for a reward model, of its reference."""
    model = run_dir / read_manifest(run_dir).outputs["model"]
    return {
        path.relative_to(model).as_posix(): path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()
    }


def assert_equal_runs(attempts: list[Path], whole: Path) -> None:
    assert weights(attempts[-1]) == weights(whole)
    assert metrics(*attempts) == metrics(whole)
    assert not (attempts[-1] / "checkpoints").exists()


MODULES = ["lco.train", "lco.sft", "lco.dpo"]


@pytest.mark.parametrize("module", MODULES)
def test_a_run_stopped_after_several_steps_and_resumed_is_the_uninterrupted_run(
    module, configs, uninterrupted, launcher, tmp_path
):
    """Each attempt is told to stop in its first step: the stops come a few steps apart, inside iterations too."""
    attempts: list[Path] = []
    stopped_at = []
    for number in range(3):
        process = launcher.start(module, configs[module], tmp_path / str(number), *reversed(attempts))
        process.wait_for("progress")
        process.signal(signal.SIGTERM)
        assert process.wait() == EXIT_STOPPED, process.log.read_text()
        attempts.append(process.run_dir)
        last = records(process.run_dir)[-1]
        assert (last["type"], read_manifest(process.run_dir / last["path"]).step) == ("checkpoint", last["step"])
        assert not (process.run_dir / "manifest.json").exists()
        stopped_at.append(last["step"])
    assert stopped_at == sorted(set(stopped_at))
    if module == "lco.train":
        assert any(step % 4 for step in stopped_at), "one stop must come inside an iteration"
    attempts.append(tmp_path / "last")
    assert launcher.run(module, configs[module], attempts[-1], *reversed(attempts[:-1])) == 0
    assert_equal_runs(attempts, uninterrupted[module])


@pytest.mark.parametrize("module", MODULES)
def test_a_run_killed_after_a_checkpoint_and_resumed_is_the_uninterrupted_run(
    module, configs, uninterrupted, launcher, tmp_path
):
    attempts: list[Path] = []
    for number in range(2):
        process = launcher.start(module, configs[module], tmp_path / str(number), *reversed(attempts))
        process.wait_for("checkpoint")
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        attempts.append(process.run_dir)
    attempts.append(tmp_path / "last")
    assert launcher.run(module, configs[module], attempts[-1], *reversed(attempts[:-1])) == 0
    (event,) = [record for record in records(attempts[-1]) if record["type"] == "event"]
    assert event["message"].startswith("resumed from step")
    assert_equal_runs(attempts, uninterrupted[module])


def test_the_loop_resumes_exactly_from_every_kind_of_step(configs, uninterrupted, launcher, tmp_path):
    """Step 4 ends an iteration; 1, 2 and 3 stand inside one, before and after the turn of an epoch."""
    config = configs["lco.train"] | {"checkpoint_every_steps": 1, "keep_checkpoints": 50}
    process = launcher.start("lco.train", config, tmp_path / "killed")
    process.wait_for("checkpoint", step=5)
    process.signal(signal.SIGKILL)
    process.wait()
    for step in (1, 2, 3, 4):
        start = tmp_path / f"from-{step}"
        (start / "checkpoints").mkdir(parents=True)
        name = f"step-{step:06d}"
        os.rename(tmp_path / "killed/checkpoints" / name, start / "checkpoints" / name)
        assert (start / "checkpoints" / name / "buffer.safetensors").exists() == (step % 4 != 0)
        assert launcher.run("lco.train", config, start) == 0
        assert weights(start) == weights(uninterrupted["lco.train"])
        assert metrics(tmp_path / "killed", start) == metrics(uninterrupted["lco.train"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_pairs_stopped_or_killed_while_sampling_and_started_again_are_the_same(number, tiny_model, launcher, tmp_path):
    config = {
        "policy": str(tiny_model),
        "prompts": SUMS | {"num_problems": 40},
        "sampling": {"max_tokens": 12, "batch_size": 8},
        "extraction": "final-number",
        "samples_per_prompt": 8,
        "device": "cpu",
    }
    rows = tmp_path / "problems.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+1=", "reference": "8"}) + "\n" for n in range(40)))
    config["prompts"] = {"name": "jsonl", "path": str(rows)}
    process = launcher.start("lco.pairs", config, tmp_path / "stopped")
    process.wait_for("progress")
    process.signal(number)
    assert process.wait() == (EXIT_STOPPED if number == signal.SIGTERM else -signal.SIGKILL)
    assert launcher.run("lco.pairs", config, tmp_path / "again", tmp_path / "stopped") == 0
    assert launcher.run("lco.pairs", config, tmp_path / "whole") == 0
    assert (tmp_path / "again/pairs.jsonl").read_bytes() == (tmp_path / "whole/pairs.jsonl").read_bytes()
    assert read_manifest(tmp_path / "again").outputs == {"pairs": "pairs.jsonl"}
