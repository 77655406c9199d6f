"""What a gate reads of the completions and results of an evaluation."""

import json

import pytest

from store.models.record import Completion, Result
from store.suite_specs import Plan, whole_gates
from store.verdicts import EvaluationRun, example_values, whole_value

SUMS = {"name": "sums"}


@pytest.fixture
def run(sqlite_rig):
    """A run to which completions and results can belong."""
    return sqlite_rig.runs(sqlite_rig.submit("sft").id)[0]


def plan(benchmark, gate, **more):
    document = {"benchmarks": [benchmark], "baseline": "alias:a", "eval_seeds": [0, 1], "gates": [gate], **more}
    return Plan.model_validate_json(json.dumps(document))


def write(rig, run, benchmark, decoding, rows):
    """Completions: (example, eval seed, sample, value, values, extracted)."""
    with rig.database.write() as session:
        for position, (example, seed, sample, value, values, extracted) in enumerate(rows):
            session.add(
                Completion(
                    run_id=run.id,
                    position=position,
                    benchmark=benchmark,
                    example_id=example,
                    decoding=decoding,
                    train_seed=0,
                    eval_seed=seed,
                    sample_index=sample,
                    prompt="",
                    completion="",
                    reference="",
                    extracted=extracted,
                    verdict="scored",
                    value=value,
                    values=values,
                    truncated=False,
                    choice_logprobs=None,
                )
            )


def read(rig, run, wanted):
    (gate,) = whole_gates(wanted)
    with rig.database.read() as session:
        return example_values(session, gate, wanted, run.id)


def test_samples_are_averaged_before_eval_seeds(sqlite_rig, run):
    rows = [
        ("p", 0, 0, 1.0, {}, None),
        ("p", 0, 1, 1.0, {}, None),
        ("p", 1, 0, 0.0, {}, None),
        ("q", 0, 0, None, {}, None),
    ]
    write(sqlite_rig, run, "sums", "t0.6-p0.95", rows)
    wanted = plan(SUMS, {"benchmark": "sums", "max_drop": 0.1}, samples_per_example=2)
    assert read(sqlite_rig, run, wanted) == ({"p": 0.5}, {"p", "q"})


def test_pass_at_k_and_the_majority_are_those_of_each_example(sqlite_rig, run):
    rows = [("p", 0, sample, float(sample == 0), {}, "7" if sample == 0 else str(sample)) for sample in range(3)]
    write(sqlite_rig, run, "sums", "t0.6-p0.95", rows)
    more = {"samples_per_example": 3, "pass_at": [2]}
    found = {
        metric: read(sqlite_rig, run, plan(SUMS, {"benchmark": "sums", "metric": metric, "max_drop": 0.1}, **more))[0]
        for metric in ("pass@2", "maj@2", "mean@3")
    }
    assert found["pass@2"] == {"p": pytest.approx(2 / 3)}
    assert found["maj@2"] == {"p": pytest.approx(1 / 3)}
    assert found["mean@3"] == {"p": pytest.approx(1 / 3)}


def test_rates_in_percent_are_read_in_percent(sqlite_rig, run):
    judge = {"endpoint": {"api": "openai", "base_url": "https://example.com/v1", "model": "m", "api_key_variable": "K"}}
    alpaca = {"name": "alpaca-eval-2", "reference": "data:a.json", "judge": judge}
    write(sqlite_rig, run, "alpaca-eval-2", "greedy", [("i", None, 0, 0.25, {"preference": 1.25}, None)])
    gate = {"benchmark": "alpaca-eval-2", "max_drop": 2.0}
    assert read(sqlite_rig, run, plan(alpaca, gate, decodings=["greedy"])) == ({"i": 25.0}, {"i"})


def test_further_numbers_of_an_example_are_read_by_their_name(sqlite_rig, run):
    oracle = {"relevance": "r", "factuality": "f", "completeness": "c"}
    qa = {
        "name": "qa-feedback",
        "source": "data:t.json",
        "oracle": {name: f"model:{one}" for name, one in oracle.items()},
    }
    rows = [("q", None, 0, 1.5, {"rouge_lsum": 0.4, "reward_sum": 1.5}, None)]
    write(sqlite_rig, run, "qa-feedback", "greedy", rows)
    for metric, value in (("rouge-lsum", 0.4), ("reward", 1.5)):
        gate = {"benchmark": "qa-feedback", "metric": metric, "max_drop": 0.1}
        assert read(sqlite_rig, run, plan(qa, gate, decodings=["greedy"]))[0] == {"q": value}


def test_a_metric_that_is_no_mean_is_the_mean_over_eval_seeds_with_the_error_of_one(sqlite_rig, run):
    wanted = plan({"name": "mmlu"}, {"benchmark": "mmlu", "metric": "macro-accuracy", "min_value": 0.5})
    (gate,) = whole_gates(wanted)
    with sqlite_rig.database.write() as session:
        for seed, value, stderr in ((0, 0.6, 0.02), (1, 0.7, 0.04)):
            session.add(
                Result(
                    run_id=run.id,
                    job_id=run.job_id,
                    method="m",
                    benchmark="mmlu",
                    metric="macro-accuracy",
                    decoding="likelihood",
                    train_seed=0,
                    eval_seed=seed,
                    value=value,
                    stderr_over_examples=stderr,
                    num_examples=9,
                )
            )
    with sqlite_rig.database.read() as session:
        found = whole_value(session, gate, EvaluationRun(run.id, run.id))
    assert found == (pytest.approx(0.65), pytest.approx(0.03), 9)
