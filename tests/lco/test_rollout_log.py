"""Rollouts that a run keeps: which, with what of each token, and as if it had never been interrupted."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from lco.collection import collect
from lco.estimation import Estimator
from lco.policy import load_policy
from lco.prompts import load_prompts
from lco.rollout_log import ROLLOUTS, RolloutLog, RolloutSamples
from lco.stage import Stage, Stopped
from lco.train import train
from tests.lco.launcher import metrics


def lines(run_dir) -> list[dict]:
    return [json.loads(line) for line in (run_dir / ROLLOUTS).read_text().splitlines()]


SOME = {"every_iterations": 2, "prompts": 2, "completions": 3, "max_tokens": 5}


def test_the_tokens_kept_are_those_of_the_step(config_of, tmp_path):
    config = config_of("grpo")
    policy = load_policy(Path(config.policy), config)
    rollouts = collect(config, policy, load_prompts(config.prompts), 0)
    batch = Estimator(config, policy).batch(rollouts)
    RolloutLog(tmp_path, RolloutSamples(**SOME), 3, 0).keep(0, rollouts, batch, policy, config.group_size)
    kept = lines(tmp_path)
    assert [line["position"] for line in kept] == [0, 1, 2, 4, 5, 6]
    starts = [0, *batch.num_tokens_B.cumsum(0).tolist()]
    assert any(line["reward"] != kept[0]["reward"] for line in kept)
    for line in kept:
        rollout, start = rollouts[line["position"]], starts[line["position"]]
        assert (line["prompt"], line["reward"], line["is_correct"]) == (
            rollout.prompt.text,
            rollout.reward,
            rollout.is_correct,
        )
        assert line["num_tokens"] == len(rollout.completion_ids)
        assert "".join(line["pieces"]) == policy.decode(rollout.completion_ids[:5])
        count = min(5, line["num_tokens"])
        assert line["advantages"] == pytest.approx(batch.advantages_N[start : start + count].tolist(), rel=1e-4)
        assert line["logprobs"] == pytest.approx(batch.behaviour_logprobs_N[start : start + count].tolist(), rel=1e-4)


def test_keeping_rollouts_changes_no_number_of_a_run(config_of, tmp_path):
    for name, samples in (("with", SOME), ("without", {"every_iterations": 0})):
        with closing(Stage(tmp_path / name, [])) as stage:
            train(config_of("lco-kld", rollout_samples=samples), stage)
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]
    assert {line["iteration"] for line in lines(tmp_path / "with")} == {0, 2}, "every second, and the last"
    assert not (tmp_path / "without" / ROLLOUTS).exists()


def test_a_run_started_again_in_its_directory_keeps_each_rollout_once(config_of, tmp_path):
    config = config_of("grpo", rollout_samples={**SOME, "every_iterations": 1})
    with closing(Stage(tmp_path / "whole", [])) as stage:
        train(config, stage)
    run_dir = tmp_path / "stopped"
    with closing(Stage(run_dir, [])) as stage:
        stage.stop()
        with pytest.raises(Stopped):
            train(config, stage)
    torn = lines(run_dir)[0] | {"iteration": 1, "prompt": "of a step that was lost"}
    with (run_dir / ROLLOUTS).open("a") as stream:
        stream.write(json.dumps(torn) + "\n" + json.dumps(torn)[:40])
    with closing(Stage(run_dir, [])) as stage:
        train(config, stage)
    assert lines(run_dir) == lines(tmp_path / "whole")
