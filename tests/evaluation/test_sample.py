"""Samplings: the same random numbers for all, tokens with their probabilities, and nothing sampled twice."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from evaluation.sample import sample_policies
from evaluation.sample_command import main
from evaluation.sample_config import SAMPLES, SampleConfig
from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy
from lco.manifest import read_manifest
from lco.policy import load_policy
from lco.stage import Stage, Stopped

TINY = LlamaInit(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, max_positions=64)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    """Two random policies."""
    found = []
    for seed in (0, 1):
        directory = tmp_path_factory.mktemp("model")
        initial_policy(TINY, StageConfig(device="cpu", seed=seed)).save(directory)
        found.append(str(directory))
    return found


def config(models: list[str], **changes) -> SampleConfig:
    fields = {
        "policies": [{"policy": model} for model in models],
        "prompts": ["1+2=", "4+5="],
        "decodings": ["greedy", "t1.0"],
        "eval_seeds": [0, 1],
        "max_tokens": 6,
        "device": "cpu",
    }
    return SampleConfig.model_validate(fields | changes)


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / SAMPLES).read_text().splitlines()]


def places(found: list[dict]) -> set[tuple]:
    return {(row["policy"], row["prompt"], row["decoding"], row["eval_seed"]) for row in found}


def test_every_completion_is_there_once_with_the_probability_of_its_tokens(models, tmp_path):
    wanted = config(models)
    with closing(Stage(tmp_path, [])) as stage:
        sample_policies(wanted, stage)
    found = rows(tmp_path)
    assert len(found) == len(places(found)) == wanted.num_completions == 12
    assert read_manifest(tmp_path).outputs == {"samples": SAMPLES}
    policy = load_policy(Path(models[1]), wanted)
    row = next(row for row in found if row["policy"] == 1 and row["eval_seed"] == 1)
    assert "".join(row["pieces"]) == row["completion"]
    prompt = policy.encode_prompt(wanted.prompts[row["prompt"]])
    ids = policy.encode_completion(row["completion"])[: len(row["pieces"])]
    inputs = torch.tensor([prompt + ids])
    with torch.no_grad():
        logits = policy.model(input_ids=inputs).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
    assert row["logprobs"] == pytest.approx(expected, abs=1e-4)


def test_equal_policies_say_the_same(models, tmp_path):
    with closing(Stage(tmp_path, [])) as stage:
        sample_policies(config([models[0], models[0]]), stage)
    first, second = ([row["completion"] for row in rows(tmp_path) if row["policy"] == n] for n in (0, 1))
    assert first == second and len(set(first)) > 1


def test_what_was_sampled_before_a_stop_is_not_sampled_again(models, tmp_path):
    wanted = config(models)
    with closing(Stage(tmp_path / "whole", [])) as stage:
        sample_policies(wanted, stage)
    whole = rows(tmp_path / "whole")
    kept = [row | {"completion": "kept"} for row in whole[:3]]
    (tmp_path / "first").mkdir()
    torn = "".join(json.dumps(row) + "\n" for row in [*kept, whole[3] | {"error": "our side failed"}])
    (tmp_path / "first" / SAMPLES).write_text(torn + json.dumps(whole[4])[:20])
    with closing(Stage(tmp_path / "second", [tmp_path / "first"])) as stage:
        stage.stop()
        with pytest.raises(Stopped):
            sample_policies(wanted, stage)
    with closing(Stage(tmp_path / "third", [tmp_path / "second", tmp_path / "first"])) as stage:
        sample_policies(wanted, stage)
    found = rows(tmp_path / "third")
    assert [row["completion"] for row in found].count("kept") == 3
    assert places(found) == places(whole) and all(row["error"] is None for row in found)


def test_a_prompt_that_does_not_fit_is_told_and_the_others_are_sampled(models, tmp_path):
    with closing(Stage(tmp_path, [])) as stage:
        sample_policies(config(models[:1], prompts=["1" * 70, "1+1="]), stage)
    errors = {row["prompt"]: row["error"] for row in rows(tmp_path)}
    assert "64 positions" in errors[0] and errors[1] is None


def test_completions_end_where_the_positions_of_the_model_end(models, tmp_path):
    with closing(Stage(tmp_path, [])) as stage:
        sample_policies(config(models[:1], max_tokens=4096), stage)
    found = rows(tmp_path)
    assert [row["error"] for row in found] == [None] * len(found)
    assert max(len(row["pieces"]) for row in found) <= 64 - 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "prompts"),
        ({"decodings": ["warm"]}, "no decoding"),
        ({"eval_seeds": [1, 1]}, "names one twice"),
        ({"prompts": ["x"] * 20, "eval_seeds": list(range(8)), "decodings": ["t1.0", "t2.0", "t3.0"]}, "960 compl"),
    ],
)
def test_a_wrong_field_is_named(models, changes, message):
    with pytest.raises(ValidationError, match=message):
        config(models, **changes)


def test_the_command_prints_models_side_by_side_without_the_platform(models, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "1+1="}\n{"prompt": "2+2="}\n')
    options = ["--against", models[1], "--prompts", str(prompts), "--temperature", "0", "--max-tokens", "4"]
    assert main([models[0], *options, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(">>> ") == 2 and printed.count("--- ") == 4 and "greedy, mean log-probability" in printed
    assert main([models[0]]) == 2
    assert "--prompt: say what is asked" in capsys.readouterr().err
    assert main([models[0], "--prompt", "x", "--max-tokens", "0"]) == 2
    assert "max_tokens" in capsys.readouterr().err
