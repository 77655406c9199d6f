"""Supervised warm-up: it imitates what it is shown, and says what is wrong with its inputs."""

import json
from contextlib import closing

import pytest
import torch

from lco.config import Optimizer, SftConfig, StageConfig
from lco.initial import initial_policy
from lco.optimization import Fitting
from lco.policy import load_policy
from lco.sft import _gradients, warm_up
from lco.stage import Stage
from tests.lco.conftest import TINY
from tests.lco.launcher import metrics

MODEL = TINY.model_dump()


def config_of(**changes):
    document = {
        "policy": MODEL,
        "prompts": {"name": "sums", "num_problems": 20, "num_terms": 2},
        "steps": 6,
        "batch_size": 4,
        "device": "cpu",
    }
    return SftConfig.model_validate(document | changes)


def test_the_loss_falls_and_the_model_is_published(stage):
    warm_up(config_of(steps=60, batch_size=8, optimizer={"learning_rate": 0.01}), stage)
    losses = [values["train/loss"] for _, values in sorted(metrics(stage.run_dir).items())]
    assert losses[-1] < 0.5 * losses[0]
    assert load_policy(stage.run_dir / "model", StageConfig(device="cpu")).vocab_size == len(TINY.characters) + 3


def test_the_loss_is_the_mean_over_tokens_whatever_the_micro_batch(tiny_policy):
    texts = ["1+2=3", "10+2=12;12+1=13", "", "9=9"]
    examples = [(tiny_policy.encode_prompt("1+2="), tiny_policy.encode_completion(text)) for text in texts]
    fitting = Fitting(tiny_policy.model, Optimizer(), 1)
    splits = ([range(1), range(1, 3), range(3, 4)], [range(2), range(2, 4)], [range(4)])
    values = [_gradients(fitting, tiny_policy, examples, 0, pieces).item() for pieces in splits]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    total = tokens = 0.0
    for prompt, completion in examples:
        ids = torch.tensor([prompt + completion])
        logprobs = tiny_policy.model(input_ids=ids).logits[0, :, : tiny_policy.vocab_size].log_softmax(-1)
        for position, token in enumerate(completion):
            total, tokens = total - logprobs[len(prompt) + position - 1, token].item(), tokens + 1
    assert values[0] == pytest.approx(total / tokens, rel=1e-5)


def test_a_saved_model_is_a_start_too(tiny_model, stage):
    warm_up(config_of(policy=str(tiny_model), steps=1), stage)
    trained, start = (
        load_policy(stage.run_dir / "model", StageConfig(device="cpu")),
        load_policy(tiny_model, StageConfig(device="cpu")),
    )
    largest = max(
        (a - b).abs().max().item() for a, b in zip(trained.model.parameters(), start.model.parameters(), strict=True)
    )
    assert 0 < largest < 1e-4


def test_rows_without_a_demonstration_are_left_out_and_none_at_all_is_refused(stage, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "1+1=", "reference": "2"}) + "\n")
    with pytest.raises(ValueError, match="prompts: none of them has a demonstration"):
        warm_up(config_of(prompts={"name": "jsonl", "path": str(path)}), stage)
    path.write_text(path.read_text() + json.dumps({"prompt": "1+1=", "completion": "1+1=2"}) + "\n")
    warm_up(config_of(prompts={"name": "jsonl", "path": str(path)}, steps=1), stage)


def test_a_train_seed_sees_problems_of_its_own_and_starts_from_weights_of_its_own(tmp_path):
    losses = []
    for seed in (0, 0, 1):
        with closing(Stage(tmp_path / str(len(losses)), [])) as stage:
            warm_up(config_of(seed=seed, steps=2), stage)
        losses.append([values["train/loss"] for values in metrics(stage.run_dir).values()])
    assert losses[0] == losses[1] != losses[2]


def test_a_stop_before_the_last_step_needs_no_validator(stage):
    validation = {
        "prompts": {"name": "sums", "split": "test", "num_problems": 4, "num_terms": 2},
        "max_tokens": 6,
        "every_steps": 4,
    }
    warm_up(config_of(validation=validation), stage)
    assert [step for step, values in metrics(stage.run_dir).items() if "eval/accuracy" in values] == [4, 6]


def test_an_initial_policy_of_a_stage_is_that_of_its_seed():
    first, second = (initial_policy(TINY, config_of(seed=seed)) for seed in (4, 5))
    assert not torch.equal(first.model.lm_head.weight, second.model.lm_head.weight)


def test_a_demonstration_longer_than_the_model_is_refused_by_name(stage):
    with pytest.raises(ValueError, match=r"prompts: sums/.* exceed the model's 8 positions"):
        warm_up(config_of(policy=MODEL | {"max_positions": 8}), stage)


def test_characters_that_the_tokenizer_lacks_are_refused_by_name(stage):
    with pytest.raises(ValueError, match=r"policy.characters: .* not among them: '=\+'|'\+='"):
        warm_up(config_of(policy=MODEL | {"characters": "0123456789;"}), stage)
