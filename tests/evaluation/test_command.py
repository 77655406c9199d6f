"""`lco evaluate CHECKPOINT --benchmarks ...`: options, table, report, resuming, refusals."""

import json
import math
import statistics

import pytest

from evaluation.command import configuration, main, make_parser
from evaluation.config import EvalConfig
from evaluation.results import read_results
from evaluation.summary import summarize, table
from lco.manifest import write_manifest

OPTIONS = ["--benchmarks", "sums", "--eval-seeds", "0,1,2", "--decodings", "t1.0,greedy", "--device", "cpu"]
SHORT = ["--limit", "12", "--max-tokens", "6", "--batch-size", "8"]


@pytest.fixture
def evaluated(tiny_model, tmp_path, capsys):
    """A finished evaluation's directory and standard output."""
    run_dir = tmp_path / "run"
    assert main([str(tiny_model), *OPTIONS, *SHORT, "-o", str(run_dir)]) == 0
    return run_dir, capsys.readouterr()


def config_of(*arguments):
    return configuration(make_parser().parse_args([*map(str, arguments)]))


def test_standard_output_is_the_table_and_the_place_of_the_report(evaluated):
    run_dir, captured = evaluated
    head, *rows = captured.out.split("\n\n")[0].splitlines()
    assert head.split()[:4] == ["benchmark", "decoding", "metric", "mean"]
    assert [row.split()[:3] for row in rows] == [["sums", "t1.0", "pass@1"], ["sums", "greedy", "pass@1"]]
    assert f"report: {run_dir / 'report.html'}" in captured.out
    assert "<table>" in (run_dir / "report.html").read_text()
    assert "12 of 12 completed" not in captured.out
    assert "48 of 48 scored" in captured.err


def test_the_table_follows_from_the_results_and_completions(evaluated):
    run_dir, _ = evaluated
    sampled, greedy = summarize(run_dir)
    rows = [row for row in read_results(run_dir).rows if row.metric == "pass@1" and row.decoding == "t1.0"]
    values = [row.value for row in rows]
    assert (sampled.num_eval_seeds, greedy.num_eval_seeds) == (3, 0)
    assert sampled.mean == pytest.approx(statistics.fmean(values))
    assert sampled.std_over_eval_seeds == pytest.approx(statistics.stdev(values))
    lines = map(json.loads, (run_dir / "completions.jsonl").read_text().splitlines())
    shares = {}
    for line in lines:
        if line["decoding"] == "t1.0":
            shares.setdefault(line["example_id"], []).append(line["value"])
    means = [statistics.fmean(share) for share in shares.values()]
    assert sampled.stderr_over_examples == pytest.approx(statistics.stdev(means) / math.sqrt(len(means)))
    assert greedy.std_over_eval_seeds is None
    assert sampled.shares["unscored"] == 0
    assert table([greedy]).splitlines()[1].split()[:3] == ["sums", "greedy", "pass@1"]


def test_the_configuration_file_is_the_evaluation(evaluated):
    run_dir, _ = evaluated
    config = EvalConfig.model_validate_json((run_dir / "config.json").read_bytes())
    assert config.model_dump(mode="json") == json.loads((run_dir / "resolved_config.json").read_bytes())


def test_the_same_command_again_makes_nothing_anew(tiny_model, evaluated, capsys):
    run_dir, before = evaluated
    journal = (run_dir / "generations.jsonl").read_bytes()
    for lost in ("manifest.json", "results.json", "completions.jsonl"):  # as when it was killed before its end
        (run_dir / lost).unlink()
    assert main([str(tiny_model), *OPTIONS, *SHORT, "-o", str(run_dir)]) == 0
    captured = capsys.readouterr()
    assert captured.out == before.out
    assert "resumed with 48 completions" in captured.err
    assert (run_dir / "generations.jsonl").read_bytes() == journal


def test_another_configuration_is_refused_and_named(tiny_model, evaluated, capsys):
    run_dir, _ = evaluated
    kept = (run_dir / "config.json").read_bytes()
    assert main([str(tiny_model), *OPTIONS, *SHORT[:3], "7", "-o", str(run_dir)]) == 2
    assert "benchmarks" in capsys.readouterr().err
    assert (run_dir / "config.json").read_bytes() == kept


def test_without_a_place_the_same_options_find_their_own(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main([str(tiny_model), *OPTIONS[:2], "--decodings", "greedy", *OPTIONS[6:], *SHORT]) == 0
    assert "this run is finished" in capsys.readouterr().err
    assert len(list((tmp_path / "evaluations").iterdir())) == 1


def test_a_run_directory_stands_for_its_model(tmp_path):
    (tmp_path / "model").mkdir()
    write_manifest(tmp_path, step=1, outputs={"model": "model"}, include=[])
    assert config_of(tmp_path, "--benchmarks", "sums").policy == str(tmp_path / "model")


def test_data_is_found_by_name_also_one_directory_below(tmp_path):
    (tmp_path / "math").mkdir()
    (tmp_path / "mmlu").mkdir()
    for name in ("math/math500_test.jsonl", "math/gsm8k_test.jsonl.gz", "mmlu/mmlu_test.jsonl", "mmlu/mmlu_dev.jsonl"):
        (tmp_path / name).touch()
    config = config_of(tmp_path, "--benchmarks", "math-500,gsm8k,mmlu", "--data", tmp_path, "--limit", 3)
    math_500, gsm8k, mmlu = config.benchmarks
    assert (math_500.source, math_500.num_problems) == (str(tmp_path / "math/math500_test.jsonl"), 3)
    assert (gsm8k.problems.path, gsm8k.problems.num_problems) == (str(tmp_path / "math/gsm8k_test.jsonl.gz"), 3)
    assert (mmlu.source, mmlu.dev) == (str(tmp_path / "mmlu/mmlu_test.jsonl"), str(tmp_path / "mmlu/mmlu_dev.jsonl"))
    assert mmlu.num_questions == 3


def test_a_benchmark_with_a_public_source_needs_no_data(tmp_path):
    [mmlu] = config_of(tmp_path, "--benchmarks", "mmlu").benchmarks
    assert mmlu.source.startswith("hub:cais/mmlu@")


def test_a_judge_and_reward_models_are_options(tmp_path):
    for name in ("alpaca_eval_gpt4_baseline.json", "instruction_difficulty.csv", "df_gamed.csv", "dev.json"):
        (tmp_path / name).touch()
    models = ["--relevance", "r", "--factuality", "f", "--completeness", "c"]
    judge = ["--judge-model", "gpt-4-1106-preview"]
    given = ["--benchmarks", "alpaca-eval-2,qa-feedback", "--data", tmp_path, *judge, *models]
    alpaca, qa = config_of(tmp_path, *given).benchmarks
    assert alpaca.judge.endpoint.api_key_variable == "OPENAI_API_KEY"
    assert alpaca.difficulty.endswith("instruction_difficulty.csv")
    assert alpaca.gamed_baseline.endswith("df_gamed.csv")
    assert (qa.oracle.relevance, qa.oracle.factuality, qa.oracle.completeness) == ("r", "f", "c")


def test_a_server_takes_the_place_of_a_checkpoint():
    server = ["--endpoint", "http://127.0.0.1:8000/v1", "--model", "m", "--api-key-variable", "MY_KEY"]
    endpoint = config_of("--benchmarks", "sums", *server).policy.endpoint
    assert (endpoint.base_url, endpoint.model, endpoint.api_key_variable) == (
        "http://127.0.0.1:8000/v1",
        "m",
        "MY_KEY",
    )


def test_samples_bring_pass_at_powers_of_two(tmp_path):
    assert config_of(tmp_path, "--benchmarks", "sums", "--samples", 6).pass_at == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmarks", "sums"], "say CHECKPOINT"),
        (["DIR", "--benchmarks", "magic"], "'magic' is none of sums"),
        (["DIR/none", "--benchmarks", "sums"], "is no directory"),
        (["DIR", "--benchmarks", "math-500"], "math-500 is read from math500_test.jsonl"),
        (["DIR", "--benchmarks", "math-500", "--data", "DIR"], "has none"),
        (["DIR", "--benchmarks", "qa-feedback", "--data", "DIR/data"], "--relevance"),
        (["DIR", "--benchmarks", "alpaca-eval-2", "--data", "DIR/data"], "--judge-model"),
        (["DIR", "--benchmarks", "sums", "--decodings", "warm"], "decodings"),
        (["DIR", "--benchmarks", "sums", "--samples", "0"], "samples_per_example"),
        (["--benchmarks", "sums", "--endpoint", "http://127.0.0.1:1/v1"], "--model NAME"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path, capsys, arguments, message):
    place = tmp_path / "here"
    (place / "data").mkdir(parents=True)
    (place / "data" / "dev.json").touch()
    (place / "data" / "alpaca_eval_gpt4_baseline.json").touch()
    if "DIR" in arguments[-1:] and "math-500" in arguments:
        place = tmp_path / "empty"
        place.mkdir()
    arguments = [argument.replace("DIR", str(place)) for argument in arguments]
    assert main([*arguments, "-o", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
