"""AlpacaEval 2.0 as a benchmark: the whole path over HTTP, to the published numbers and through kills."""

import csv
import json
import os
import random
import signal
import time
from contextlib import closing
from math import log

import pytest

from evaluation.benchmarks.alpaca_eval_2 import AlpacaEval2
from evaluation.config import EvalConfig
from evaluation.endpoint import EndpointRejected, SpendingCapReached
from evaluation.judge_config import AlpacaEval2Benchmark
from evaluation.passes import Pass
from evaluation.run import TooManyErrors, evaluate
from evaluation.scoring.alpaca_eval import score_annotations
from evaluation.types import Completion, Item
from lco.stage import Stage
from tests.evaluation.alpaca_files import SHARED, made_annotations, made_files, published_example
from tests.evaluation.judge_server import Answer, JudgeServer
from tests.evaluation.replay import replaying, shown

needs_data = pytest.mark.skipif(not SHARED.exists(), reason=f"no AlpacaEval data at {SHARED}")
ENDPOINT = {
    "api": "openai", "model": "judge", "backoff_seconds": 0.01, "max_backoff_seconds": 0.02, "breaker_seconds": 0.05,
    "timeout_seconds": 5.0, "prices": {"input_per_million": 10.0, "output_per_million": 30.0},
}  # fmt: skip


def judge_at(server, **changes):
    return {"endpoint": ENDPOINT | {"base_url": f"{server.origin}/v1"} | changes}


def written(directory, files, rows):
    """The files of a benchmark, as the configuration names them."""
    reference = [
        {"index": entry["index"], "instruction": row["instruction"], "output": row["output_1"], "generator": "baseline"}
        for entry, row in zip(files.instructions, rows, strict=True)
    ]
    (directory / "reference.json").write_text(json.dumps(reference))
    for name, rows_of_file in (("difficulty", files.difficulty), ("gamed_baseline", files.gamed_baseline)):
        with (directory / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows_of_file[0]))
            writer.writeheader()
            writer.writerows(rows_of_file)
    return {name: str(directory / f"{name}.csv") for name in ("difficulty", "gamed_baseline")} | {
        "reference": str(directory / "reference.json")
    }


@pytest.fixture(scope="module")
def files():
    return made_files(count=120)


@pytest.fixture(scope="module")
def rows(files):
    return made_annotations(files)


@pytest.fixture
def paths(tmp_path, files, rows):
    return written(tmp_path, files, rows)


def benchmark_of(server, paths, endpoint=None, **changes):
    document = {"judge": judge_at(server, **(endpoint or {})), "num_resamples": 50} | paths | changes
    return AlpacaEval2(AlpacaEval2Benchmark.model_validate(document))


def completed(benchmark, graders, outputs):
    """The completions of the benchmark, scored."""
    items = [
        Item(position=position, example=example, completion=output)
        for position, (example, output) in enumerate(zip(benchmark.examples, outputs, strict=True))
    ]
    scores = dict(benchmark.score_all(items, graders))
    return [
        Completion(
            benchmark=benchmark.name, example_id=item.example.id, decoding="greedy", train_seed=0, eval_seed=None,
            prompt=item.example.prompt, completion=item.completion, reference=item.example.reference, extracted=None,
            verdict=scores[item.position].verdict, correct=None, value=scores[item.position].value,
            reason=scores[item.position].reason, truncated=False, values=scores[item.position].values,
            details=scores[item.position].details,
        )
        for item in items
    ]  # fmt: skip


def answering(rows):
    """A judge with the preferences of annotations, told as log-probabilities of what is shown."""
    known = {row["instruction"]: row for row in rows}

    def answer(call):
        instruction, first, _ = shown(call)
        row = known[instruction]
        chance = row["preference"] - 1
        chance = chance if first != row["output_1"] else 1 - chance
        return Answer(logprobs={"m": log(chance), "M": log(1 - chance), "x": -20.0})

    return answer


def test_the_figures_are_those_of_the_annotations_that_it_writes(files, rows, paths, graders):
    with JudgeServer(answering(rows)) as server:
        benchmark = benchmark_of(server, paths)
        benchmark.prepare(graders)
        completions = completed(benchmark, graders, [row["output_2"] for row in rows])
        metrics = benchmark.aggregate(completions)
        documents = benchmark.documents(completions, "mine")
        _, summary = score_annotations(documents["annotations.json"], **files.keywords(), num_resamples=50)
        _, direct = score_annotations(rows, **files.keywords(), num_resamples=50)
    assert tuple(metrics) == benchmark.metrics
    for name in ("length_controlled_winrate", "win_rate", "discrete_win_rate", "lc_fit_spread", "n_total"):
        assert metrics[name] == pytest.approx(summary[name]) == pytest.approx(direct[name], abs=1e-3)
    assert metrics["standard_error"] == pytest.approx(summary["standard_error"])
    assert summary["model"] == "mine" and documents["annotations.json"][0]["annotator"] == "weighted_alpaca_eval_judge"
    assert documents["model_outputs.json"][5] == {
        "instruction": rows[5]["instruction"], "output": rows[5]["output_2"], "generator": "mine", "sample_index": 0,
    }  # fmt: skip
    assert metrics["judge_tokens"] == 120 * 101 and metrics["judge_price"] == pytest.approx(120 * 0.00103)
    assert graders.price == pytest.approx(metrics["judge_price"])
    errors = benchmark.standard_errors(completions)
    assert errors["length_controlled_winrate"] == pytest.approx(summary["lc_bootstrap"]["standard_error"])


def test_figures_do_not_depend_on_the_order_of_completions(rows, paths, graders):
    with JudgeServer(answering(rows)) as server:
        benchmark = benchmark_of(server, paths)
        completions = completed(benchmark, graders, [row["output_2"] for row in rows])
        metrics = benchmark.aggregate(completions)
        random.Random(1).shuffle(completions)
        assert benchmark_of(server, paths).aggregate(completions) == metrics


def test_a_failure_of_the_judge_is_no_value_counted_and_no_loss(rows, paths, graders):
    def fault(call):
        return "400 content_filter" if shown(call)[0] in ("do 3", "do 7") else ""

    with JudgeServer(answering(rows), fault) as server:
        benchmark = benchmark_of(server, paths)
        completions = completed(benchmark, graders, [row["output_2"] for row in rows])
        metrics = benchmark.aggregate(completions)
        assert [one.reason for one in completions if one.value is None] == ["rejected_content_filter"] * 2
        assert (metrics["n_missing"], metrics["n_total"]) == (2, 118)
        kept = [row["preference"] for row in rows if row["instruction"] not in ("do 3", "do 7")]
        assert metrics["win_rate"] == pytest.approx(100 * (sum(kept) / 118 - 1))
        assert "2 of 120 instructions have no preference" in benchmark.warnings(completions)


def test_equal_outputs_are_a_tie_that_nobody_is_asked_about(rows, paths, graders):
    with JudgeServer() as server:
        benchmark = benchmark_of(server, paths)
        completions = completed(benchmark, graders, [row["output_1"] for row in rows])
        assert benchmark.aggregate(completions)["win_rate"] == 50 and server.calls == []


def test_without_difficulties_there_is_a_win_rate_and_a_warning(rows, paths, graders):
    with JudgeServer(answering(rows)) as server:
        benchmark = benchmark_of(server, paths | {"difficulty": None})
        completions = completed(benchmark, graders, [row["output_2"] for row in rows])
        metrics = benchmark.aggregate(completions)
        assert metrics["length_controlled_winrate"] is None and metrics["win_rate"] is not None
        assert "the length-controlled win rate needs difficulty" in benchmark.warnings(completions)


def test_another_gamed_baseline_is_another_benchmark_and_another_patience_is_not(tmp_path, files, rows, paths):
    with JudgeServer() as server:
        first = benchmark_of(server, paths)
        other = tmp_path / "other.csv"
        other.write_text((tmp_path / "gamed_baseline.csv").read_text().replace("0.5", "0.4"))
        assert benchmark_of(server, paths | {"gamed_baseline": str(other)}).manifest() != first.manifest()
        patient = benchmark_of(server, paths, endpoint={"max_attempts": 3, "spending_cap": 9.0})
        hashes = {Pass(one, "greedy", None, 1).configuration_hash for one in (first, patient)}
        assert len(hashes) == 1
        assert (
            Pass(benchmark_of(server, paths, endpoint={"model": "x"}), "greedy", None, 1).configuration_hash
            not in hashes
        )
        assert first.grader_versions() == {"judge": "weighted_alpaca_eval_judge", "gamed_baseline": "other"}


def test_what_is_wrong_is_refused_before_anything_is_generated(tmp_path, paths, graders):
    with JudgeServer() as server:
        with pytest.raises(ValueError, match="JUDGE_KEY holds no key"):
            benchmark_of(server, paths, endpoint={"api_key_variable": "JUDGE_KEY"}).prepare(graders)
        with pytest.raises(SpendingCapReached):
            benchmark_of(server, paths, endpoint={"spending_cap": 0.001}).prepare(graders)
        (tmp_path / "bad.csv").write_text("index,instruction_difficulty\n0,1\n")
        with pytest.raises(ValueError, match="difficulty: has no index 1"):
            benchmark_of(server, paths | {"difficulty": str(tmp_path / "bad.csv")}).load()
        with pytest.raises(ValueError, match="gamed_baseline"):
            benchmark_of(server, paths | {"gamed_baseline": str(tmp_path / "bad.csv")}).prepare(graders)
        assert server.calls == []


def test_the_outputs_that_were_made_are_checked_against_the_cap_before_the_first_call(rows, paths, graders):
    with JudgeServer() as server:
        benchmark = benchmark_of(server, paths, endpoint={"spending_cap": 2.0})
        benchmark.prepare(graders)
        with pytest.raises(SpendingCapReached, match="the comparisons could cost"):
            completed(benchmark, graders, ["x" * 20_000 for _ in rows])
        assert server.calls == []


def test_a_refused_key_ends_the_scoring(rows, paths, graders):
    with JudgeServer(faults=lambda call: "401") as server, pytest.raises(EndpointRejected):
        completed(benchmark_of(server, paths), graders, [row["output_2"] for row in rows])


@needs_data
@pytest.mark.timeout(120)
def test_a_replayed_judge_ends_at_the_published_numbers(tmp_path, graders):
    rows, expected = published_example("vicuna-13b")
    by_instruction = {row["instruction"]: row for row in rows}
    paths = {
        "reference": str(SHARED / "eval_805_gpt4_1106_preview.jsonl.gz"),
        "difficulty": str(SHARED / "instruction_difficulty.csv"),
        "gamed_baseline": str(SHARED / "df_gamed_reconstructed.csv.gz"),
        "num_resamples": 0,
    }

    def fault(call):
        return ["", "500", "429", "", "cut"][call.number % 5] if call.repeat < 2 else ""

    with JudgeServer(replaying(rows), fault) as server:
        benchmark = benchmark_of(server, paths, endpoint={"breaker_failures": 30})
        outputs = [by_instruction[example.prompt]["output_2"] for example in benchmark.examples]
        metrics = benchmark.aggregate(completed(benchmark, graders, outputs))
        stats = server.asked_stats()
    assert metrics["win_rate"] == pytest.approx(expected["win_rate"], abs=1e-4)
    assert metrics["standard_error"] == pytest.approx(expected["standard_error"], abs=1e-4)
    assert metrics["length_controlled_winrate"] == pytest.approx(expected["length_controlled_winrate"], abs=0.02)
    assert (metrics["n_total"], metrics["n_missing"]) == (805, 0)
    assert stats["answered"] == stats["different"] and stats["requests"] > 1.3 * stats["different"]


@pytest.fixture
def document(tiny_model, paths):
    return {
        "policy": str(tiny_model), "decodings": ["greedy"], "batch_size": 40, "device": "cpu",
        "benchmarks": [{"name": "alpaca-eval-2", "max_tokens": 4, "num_resamples": 50, "num_examples": 120} | paths],
    }  # fmt: skip


def judged(document, server, **changes):
    [benchmark] = document["benchmarks"]
    return document | {"benchmarks": [benchmark | {"judge": judge_at(server, **changes)}]}


def by_instruction(call):
    """A judge whose opinion depends on what it is shown alone."""
    share = (sum(shown(call)[0].encode()) % 17 + 1) / 20
    return Answer(logprobs={"m": log(share), "M": log(1 - share)})


@pytest.mark.timeout(300)
def test_an_evaluation_killed_while_it_judges_resumes_to_the_same_bytes_and_repeats_no_answered_call(
    document, launcher, stage, tmp_path
):
    in_flight = 4
    with JudgeServer(by_instruction) as server:
        evaluate(EvalConfig.model_validate(judged(document, server)), stage)
        assert server.asked_stats()["repeated"] == 0
    troubles = {5: "500", 17: "429", 31: "cut", 44: "garbage"}
    with JudgeServer(by_instruction, lambda call: troubles.get(call.number, ""), seconds=0.01) as server:
        troubled = judged(document, server, max_concurrency=in_flight)
        process = launcher.start("evaluation.run", troubled, tmp_path / "killed")
        while len(server.calls) < 50:
            os.kill(process.pid, 0)
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert launcher.run("evaluation.run", troubled, tmp_path / "last", process.run_dir) == 0
        stats = server.asked_stats()
        assert stats["different"] == 120
        assert stats["answered"] - stats["different"] <= in_flight
    whole, last = stage.run_dir, tmp_path / "last"
    for name in ("model_outputs.json", "annotations.json"):
        place = f"documents/alpaca-eval-2/greedy/{name}"
        assert rows_of(last / place) == rows_of(whole / place)
    assert values_of(last) == values_of(whole)


def rows_of(path):
    return [row | {"time_per_example": 0, "generator": "", "generator_2": ""} for row in json.loads(path.read_text())]


def values_of(run_dir):
    return {row["metric"]: row["value"] for row in json.loads((run_dir / "results.json").read_text())["rows"]}


def test_too_many_failures_of_the_judge_fail_the_evaluation_with_the_first_reason(document, stage):
    with JudgeServer(faults=lambda call: "400 content_filter") as server:
        config = EvalConfig.model_validate(judged(document, server))
        with pytest.raises(TooManyErrors, match=r"alpaca-eval-2: 7 of 120 .* rejected_content_filter"):
            evaluate(config, stage)


def test_failures_of_the_judge_are_asked_about_again_by_a_resumed_evaluation(document, stage, tmp_path):
    def fault(call):
        return "400 content_filter" if shown(call)[0] == "do 3" and not call.repeat else ""

    with JudgeServer(by_instruction, fault) as server:
        config = EvalConfig.model_validate(judged(document, server))
        evaluate(config, stage)
        assert values_of(stage.run_dir)["n_missing"] == 1
        with closing(Stage(tmp_path / "again", [stage.run_dir])) as again:
            evaluate(config, again)
        assert values_of(again.run_dir)["n_missing"] == 0
        assert server.asked_stats()["requests"] == 121


def test_no_key_is_left_in_what_an_evaluation_writes(document, stage, monkeypatch, capfd):
    monkeypatch.setenv("JUDGE_KEY", "sk-CANARY-0123456789")
    faults = ["500", "429 0.01", "400 content_filter"]
    with JudgeServer(by_instruction, faults) as server:
        evaluate(EvalConfig.model_validate(judged(document, server, api_key_variable="JUDGE_KEY")), stage)
        assert server.calls[0].headers["authorization"] == "Bearer sk-CANARY-0123456789"
    files = [path for path in stage.run_dir.rglob("*") if path.is_file()]
    assert files and all(b"CANARY" not in path.read_bytes() for path in files)
    assert "CANARY" not in "".join(capfd.readouterr())
