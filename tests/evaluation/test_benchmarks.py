"""The benchmarks: table against union, first examples, scores and metrics."""

import json
import subprocess
import sys
from typing import get_args

import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import BenchmarkConfig, Gsm8kBenchmark, SumsBenchmark
from evaluation.math_config import Aime24Benchmark, Amc23Benchmark, Math500Benchmark, MinervaMathBenchmark
from evaluation.types import Completion, Result
from lco.config import Gsm8k as Gsm8kPrompts
from lco.config import Sums as SumsPrompts
from lco.prompts import load_prompts

ANSWERED = [name for name, benchmark in BENCHMARKS.items() if "pass@1" in benchmark.metrics]


@pytest.fixture
def benchmark_of(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    rows = [{"question": f"{n} and {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in range(100, 105)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = tmp_path / "problems.jsonl"
    rows = [{"problem": f"{n} + {n}?", "answer": 2 * n, "solution": rf"\boxed{{{2 * n}}}"} for n in range(100, 105)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    configs = {
        "math-500": Math500Benchmark(source=str(problems), extraction="any"),
        "amc-23": Amc23Benchmark(source=str(problems), extraction="any"),
        "minerva-math": MinervaMathBenchmark(source=str(problems), extraction="any"),
        "aime-24": Aime24Benchmark(source=str(problems), extraction="any"),
        "sums": SumsBenchmark(problems=SumsPrompts(split="test", num_problems=5)),
        "gsm8k": Gsm8kBenchmark(problems=Gsm8kPrompts(path=str(path)), extraction="final-number"),
    }

    def make(name):
        return BENCHMARKS[name](configs[name])

    return make


def completion(**changes):
    values = {
        "benchmark": "sums",
        "example_id": "1",
        "decoding": "greedy",
        "train_seed": 0,
        "eval_seed": None,
        "prompt": "",
        "completion": "",
        "reference": "",
        "extracted": None,
        "verdict": "wrong",
        "correct": False,
        "value": 0.0,
        "truncated": False,
    }
    return Completion(**values | changes)


def test_every_benchmark_has_one_configuration_and_one_line_in_the_table():
    union = get_args(get_args(BenchmarkConfig)[0])
    assert {model.model_fields["name"].default for model in union} == set(BENCHMARKS)
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


@pytest.mark.parametrize("name", ANSWERED)
def test_the_first_example_scores_its_own_answer_as_right_and_another_as_wrong(benchmark_of, graders, name):
    benchmark = benchmark_of(name)
    examples = benchmark.load()
    first = examples[0]
    right, wrong, none = (benchmark.score(first, text, graders) for text in (f"so ={first.reference}", "so =-77", "so"))
    assert (right.value, right.verdict, right.extracted) == (1.0, "correct", first.reference)
    assert (wrong.value, wrong.verdict, wrong.extracted) == (0.0, "wrong", "-77")
    assert (none.value, none.verdict, none.extracted) == (0.0, "no_answer", None)
    assert len({example.id for example in examples}) == len(examples) == 5
    assert benchmark.load() == examples


@pytest.mark.parametrize("name", ANSWERED)
def test_no_completion_raises(benchmark_of, graders, name):
    benchmark = benchmark_of(name)
    example = benchmark.load()[0]
    for text in ("", "\x00", "=" * 10_000, r"\boxed{" * 5000, "9" * 100_000, "=e5", "=1/0"):
        assert benchmark.score(example, text, graders).value == 0.0


def test_the_problems_of_the_sums_benchmark_are_those_of_no_training_split(benchmark_of):
    texts = {example.prompt for example in BENCHMARKS["sums"](SumsBenchmark()).load()}
    for split in ("train", "validation"):
        assert not texts & {prompt.text for prompt in load_prompts(SumsPrompts(split=split, num_problems=3000))}


def test_pass_at_1_is_the_mean_over_scored_completions(benchmark_of):
    benchmark = benchmark_of("sums")
    found = benchmark.aggregate(
        [
            completion(example_id="1", verdict="correct", correct=True, value=1.0),
            completion(example_id="2"),
            completion(example_id="3", verdict="no_answer", truncated=True),
            completion(example_id="4", verdict="error", correct=None, value=None),
        ]
    )
    assert found == {"pass@1": pytest.approx(1 / 3), "no-answer": 0.25, "truncated": 0.25}
    assert tuple(found) == benchmark.metrics


def test_no_scored_completion_is_no_value_and_not_zero(benchmark_of):
    assert benchmark_of("sums").aggregate([completion(verdict="error", correct=None, value=None)])["pass@1"] is None


def test_a_row_of_results_is_json():
    row = Result(
        benchmark="b", metric="m", decoding="greedy", eval_seed=None, value=None, num_examples=3, num_unscored=3
    )
    assert json.loads(json.dumps(row.document())) == {
        "benchmark": "b",
        "metric": "m",
        "decoding": "greedy",
        "eval_seed": None,
        "value": None,
        "stderr_over_examples": None,
        "num_examples": 3,
        "num_unscored": 3,
        "configuration": "",
    }


def test_benchmarks_and_configurations_are_read_without_torch():
    modules = "evaluation.benchmarks, evaluation.config, lco.algorithms, lco.answers, lco.manifest, sys"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_units_are_of_metrics_that_the_benchmark_has(name):
    assert BENCHMARKS[name].units.keys() <= set(BENCHMARKS[name].metrics)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_metrics_that_gates_can_be_set_on_are_metrics_of_the_benchmark(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.recorded
    assert {*benchmark.recorded, *benchmark.floors} <= set(benchmark.metrics)
    assert not set(benchmark.recorded) & set(benchmark.floors)
