"""Prices: parameters against what the models' authors state, operations against torch's counter and against a clock."""

import time
from contextlib import closing

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lco.architectures import ARCHITECTURES, of_new_llama
from lco.config import DpoConfig, LlamaInit, SftConfig
from lco.dpo import tune
from lco.initial import initial_policy
from lco.pricing import (
    Lengths,
    dpo_work,
    frozen_of,
    sft_work,
    train_work,
)
from lco.sft import warm_up
from lco.stage import Stage
from lco.train import train
from tests.lco.conftest import TINY
from tests.lco.launcher import metrics

STATED_PARAMETERS = {
    "qwen2.5-1.5b": 1.54e9,
    "qwen2.5-3b": 3.09e9,
    "qwen2.5-7b": 7.61e9,
    "qwen2.5-32b": 32.5e9,
    "qwen2.5-72b": 72.7e9,
    "qwen3-1.7b": 1.72e9,
    "qwen3-4b": 4.02e9,
    "qwen3-8b": 8.19e9,
    "llama-3.2-3b": 3.21e9,
    "llama-3.1-8b": 8.03e9,
    "llama-3-8b": 8.03e9,
    "llama-3-70b": 70.6e9,
    "ministral-3-3b": 3.4e9,
    "ministral-3-8b": 8.5e9,
    "smollm2-135m": 0.135e9,
}
"""From the models' cards; that of Ministral without its vision encoder."""
MODEL = {
    "name": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_layers": 2,
    "num_heads": 4,
    "max_positions": 64,
}
SHORT = {"sampling": {"max_tokens": 6, "batch_size": 16}, "iterations": 1, "steps_per_epoch": 1, "micro_batch_size": 16}
"""Completions of nearly one length: padding would be counted too."""
SUMS = {"name": "sums", "num_terms": 4, "num_problems": 64}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_has_the_parameters_that_its_authors_state(name):
    assert ARCHITECTURES[name].parameters == pytest.approx(STATED_PARAMETERS[name], rel=0.01)


def counted(work):
    """Operations of a call by torch's own counter; on a CPU it does not see attention, up to 20 % of these models."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def architecture():
    return of_new_llama(LlamaInit.model_validate(MODEL))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "model"
    initial_policy(LlamaInit.model_validate(MODEL), SftConfig.model_validate(sft_document())).save(path)
    return path


def sft_document(**changes):
    return {"policy": MODEL, "prompts": SUMS, "steps": 3, "batch_size": 16, "device": "cpu"} | changes


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"loss_chunk_tokens": 64}])
def test_the_operations_of_a_warm_up_are_those_that_torch_counts(stage, changes):
    config = SftConfig.model_validate(sft_document(**changes))
    assert sft_work(config, architecture(), None).operations == pytest.approx(
        counted(lambda: warm_up(config, stage)), rel=0.12
    )


@pytest.mark.parametrize("name", ["lco-kld", "grpo", "ppo-critic"])
def test_the_operations_of_the_loop_are_those_that_torch_counts(stage, config_of, name):
    config = config_of(name, **SHORT)
    operations = counted(lambda: train(config, stage))
    completion = sum(value["train/completion_tokens"] for value in told(stage)) / config.iterations
    model = of_new_llama(TINY)
    work = train_work(config, model, frozen_of(config, model, model), Lengths(4.0, completion))
    assert work.operations == pytest.approx(operations, rel=0.25)


def told(stage):
    return [values for _, values in sorted(metrics(stage.run_dir).items()) if "train/completion_tokens" in values]


def test_a_loop_that_keeps_hidden_states_makes_the_frozen_logits_twice(stage, config_of):
    config = config_of("lco-kld", loss_chunk_tokens=16, **SHORT)
    operations = counted(lambda: train(config, stage))
    completion = sum(value["train/completion_tokens"] for value in told(stage)) / config.iterations
    model = of_new_llama(TINY)
    work = train_work(config, model, frozen_of(config, model, model), Lengths(4.0, completion))
    assert work.operations == pytest.approx(operations, rel=0.25)


def test_the_operations_of_a_reward_model_are_those_that_torch_counts(stage, tiny_model, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "1+2=", "chosen": "1+2=3;3+4=7", "rejected": "1+2=4;4+4=9"}\n' * 16)
    config = DpoConfig(policy=str(tiny_model), pairs=str(path), batch_size=8, epochs=2, device="cpu")
    work = dpo_work(config, of_new_llama(TINY), Lengths(4.0, 12.0), 16)
    assert work.operations == pytest.approx(counted(lambda: tune(config, stage)), rel=0.25)


def test_a_price_is_the_time_of_a_real_run_on_this_very_machine_within_a_factor_of_two(tmp_path):
    """Operations over the rate of a matrix product of the same shape: what a utilisation of 100 % would mean."""
    model = {"name": "llama", "hidden_size": 256, "intermediate_size": 1024, "num_layers": 2, "max_positions": 64}
    sizes = of_new_llama(LlamaInit.model_validate(model))
    rates, seconds = [matmul_rate(1000, 256, 1024)], []
    for steps in (1, 4):  # the difference is three steps, without what a run does once
        document = sft_document(policy=model, steps=steps, batch_size=32, micro_batch_size=32)
        config = SftConfig.model_validate(document)
        with closing(Stage(tmp_path / str(steps), [])) as stage:
            started = time.process_time()
            warm_up(config, stage)
            seconds.append(time.process_time() - started)
        rates.append(matmul_rate(1000, 256, 1024))
    priced = sft_work(config, sizes, None).operations * (3 / 4) / (sum(rates) / len(rates))
    assert 0.5 < (seconds[1] - seconds[0]) / priced < 2.0, (seconds, priced)


def matmul_rate(rows, inner, columns):
    """Floating-point operations per second of processor time of a float32 product, after a warm-up."""
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    left @ right
    started = time.process_time()
    for _ in range(10):
        left @ right
    return 10 * 2 * rows * inner * columns / (time.process_time() - started)
