"""Prices of experiments: hours on a device, memory that fits or does not, what has no price."""

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from store.pricing import DEVICES, gibibytes, price
from store.specs import ExperimentSpec


def spec_of(document: Any) -> ExperimentSpec:
    return TypeAdapter(ExperimentSpec).validate_json(json.dumps(document))


def sft(**changes: Any) -> dict[str, Any]:
    config = {"policy": "model:qwen2.5-3b", "prompts": {"name": "jsonl", "path": "data:a.jsonl"}, "steps": 100}
    return {"name": "sft", "kind": "sft", "config": config | changes}


def priced(*jobs: dict[str, Any], **more: Any) -> Any:
    return price(spec_of({"name": "x", "jobs": list(jobs), **more}))


def test_seeds_and_lengths_multiply_the_work_and_a_slower_device_takes_longer() -> None:
    (one,) = priced(sft()).jobs
    (two,) = priced(sft() | {"seeds": [0, 1]}).jobs
    assert two.operations == 2 * one.operations
    (longer,) = priced(sft(), pricing={"completion_tokens": 1024.0}).jobs
    assert longer.operations > 1.5 * one.operations
    spec = spec_of({"name": "x", "jobs": [sft(precision="bfloat16")]})
    assert price(spec, "a100").hours.low > 3 * price(spec, "h100").hours.low
    assert set(DEVICES) == {"h100", "h200", "a100"}


def test_full_training_of_three_billion_parameters_needs_sixteen_bytes_each() -> None:
    (job,) = priced(sft(micro_batch_size=1)).jobs
    assert job.memory is not None
    assert job.memory.parts["weights, gradients and optimizer state"] == pytest.approx(16 * 3.09e9, rel=0.01)
    sharded = sft(parallel="fsdp2", micro_batch_size=1) | {"resources": {"gpus": 4}}
    assert priced(sharded).jobs[0].memory.total < job.memory.total - 3 * 4 * 3e9
    adapter = sft(adapter={"rank": 16}, frozen_weights="bfloat16", micro_batch_size=1)
    assert priced(adapter).jobs[0].memory.total < job.memory.total - 13 * 3e9


@pytest.mark.parametrize(
    ("change", "part"),
    [({"gradient_checkpointing": True}, "activations"), ({"loss_chunk_tokens": 512}, "logits")],
)
def test_options_that_save_memory_save_it_where_they_say(change: dict[str, Any], part: str) -> None:
    plain, less = priced(sft()).jobs[0], priced(sft(**change)).jobs[0]
    assert less.memory.parts[part] < plain.memory.parts[part] / 3
    assert less.operations >= plain.operations


def test_what_does_the_same_is_priced_once() -> None:
    again = sft() | {"name": "again"}
    found = priced(sft(), again)
    assert found.operations == found.jobs[0].operations
    assert found.jobs[0].content == found.jobs[1].content


def test_a_job_takes_the_sizes_of_what_it_starts_from() -> None:
    dpo = {"name": "rm", "kind": "dpo", "config": {"policy": "job:sft", "pairs": "data:pairs.jsonl"}}
    train = {
        "name": "lco",
        "kind": "train",
        "config": {
            "policy": "job:sft",
            "prompts": {"name": "jsonl", "path": "data:a.jsonl"},
            "algorithm": {"name": "lco-kld", "advantage": {"name": "dpo", "reward_model": "job:rm"}},
        },
    }
    found = priced(sft(), dpo, train, pricing={"rows": {"data:pairs.jsonl": 3000}})
    by_name = {job.name: job for job in found.jobs}
    assert not any(job.problem for job in found.jobs)
    frozen = by_name["lco"].memory.parts["frozen models"]
    assert frozen == pytest.approx(3 * 4 * 3.09e9, rel=0.01)  # reward model, reference, starting policy
    assert by_name["rm"].operations == pytest.approx(3000 / 6400 * 2 * by_name["sft"].operations, rel=0.4)
    assert gibibytes(by_name["sft"].memory) > 46


def test_what_cannot_be_priced_says_why_and_costs_nothing() -> None:
    unknown = sft(policy="model:mine")
    dpo = {"name": "rm", "kind": "dpo", "config": {"policy": "model:qwen3-4b", "pairs": "data:pairs.jsonl"}}
    first, second = priced(unknown, dpo).jobs
    assert "model:mine" in first.problem
    assert first.operations == 0
    assert "pricing.rows" in second.problem


def test_judges_are_priced_by_their_tokens() -> None:
    endpoint = {"api": "openai", "model": "m", "prices": {"input_per_million": 2.5, "output_per_million": 10.0}}
    benchmark = {"name": "alpaca-eval-2", "reference": "data:b.json", "judge": {"endpoint": endpoint}}
    evaluation = {
        "name": "eval",
        "kind": "evaluation",
        "config": {"policy": "job:sft", "benchmarks": [benchmark], "eval_seeds": [0]},
    }
    found = priced(sft(), evaluation)
    assert found.judge_price == pytest.approx(805 * (128 + 2 * 512 + 250) * 2.5e-6 + 805 * 10e-6, rel=1e-6)
