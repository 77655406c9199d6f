import gzip
import json

import pytest

from evaluation.benchmarks.math_500 import Math500
from evaluation.config import EvalConfig
from evaluation.results import completion_line
from evaluation.score import score
from evaluation.score_config import ScoreConfig
from evaluation.scoring.__main__ import main
from evaluation.types import Completion
from lco.manifest import read_manifest
from lco.stage import Stage

ROWS = [
    {"id": "a", "completion": r"so \boxed{\frac12}", "reference": "0.5"},
    {"id": "a", "completion": "no idea", "reference": "0.5"},
    {"id": "b", "answer": "4", "reference": "5"},
]
MMLU = [{"subject": "law", "id": 1, "prediction": "A", "answer": "A"}]


def lines(path, rows):
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_standard_output_is_one_document_and_rows_go_to_a_file(tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert main(["math", lines(tmp_path / "in.jsonl", ROWS), "-o", str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pass@1"] == 0.25
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["verdict"], row["correct"]) for row in rows] == [
        ("a", "correct", True),
        ("a", "no_answer", False),
        ("b", "wrong", False),
    ]


@pytest.mark.parametrize("form", ["json", "json.gz", "jsonl.gz"])
def test_every_form_of_file_gives_the_same_figures(tmp_path, capsys, form):
    text = json.dumps(MMLU) if form.startswith("json.") or form == "json" else json.dumps(MMLU[0]) + "\n"
    path = tmp_path / f"in.{form}"
    path.write_bytes(gzip.compress(text.encode()) if form.endswith(".gz") else text.encode())
    assert main(["mmlu", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["micro"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["math"], '{"id": 1, "answer": "1"}\n', "row 1: `reference`"),
        (["math"], '{"id": 1}\n{"x"\n', "row 2 is no JSON"),
        (["math"], "", "there are no rows"),
        (["mmlu"], '{"subject": "law"}\n', "row 1"),
    ],
)
def test_what_is_wrong_with_an_input_is_one_line_on_standard_error(tmp_path, capsys, arguments, content, message):
    path = tmp_path / "in.jsonl"
    path.write_text(content)
    assert main([*arguments, str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_file_that_is_missing_is_named(tmp_path, capsys):
    assert main(["math", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def test_without_its_files_there_is_no_length_controlled_win_rate_and_a_reason(tmp_path, capsys):
    rows = [
        {
            "instruction": f"i{n}",
            "output_1": "a",
            "output_2": "b",
            "generator_1": "g",
            "generator_2": "h",
            "preference": p,
        }
        for n, p in enumerate((1.0, 2.0, 1.5, 2.0))
    ]
    assert main(["alpaca-eval", lines(tmp_path / "a.jsonl", rows)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["win_rate"] == 62.5
    assert figures["length_controlled_winrate"] is None
    assert figures["reason"]


def test_the_stage_publishes_figures_rows_and_results(tmp_path):
    stage = Stage(tmp_path / "run", [])
    score(ScoreConfig.model_validate({"scoring": {"name": "math", "rows": ROWS}}), stage)
    stage.close()
    manifest = read_manifest(stage.run_dir)
    assert manifest.outputs == {"score": "score.json", "rows": "rows.jsonl", "results": "results.json"}
    assert json.loads((stage.run_dir / "score.json").read_text())["pass@1"] == 0.25
    results = json.loads((stage.run_dir / "results.json").read_text())["rows"]
    (row,) = [row for row in results if row["metric"] == "pass@1"]
    assert (row["benchmark"], row["decoding"], row["value"], row["eval_seed"]) == ("math", "stored", 0.25, None)
    assert '"type": "progress"' in (stage.run_dir / "progress.jsonl").read_text()


HOSTILE = [
    "x" * 2_000_000 + r"\boxed{3}",
    r"\boxed{" + "9" * 2_000_000 + "}",
    "\x00\x1b[31m\ud800" + r"\boxed{\ud83d}",
    "{0} %s {} {problem} ${reference}",
    "(10^9)!",
    r"\boxed{" * 20_000 + "3",
    "(" * 5000 + ")" * 5000,
    "",
]


def test_no_text_of_a_model_can_raise_in_any_kind_of_scoring(tmp_path, capsys):
    math = [{"id": n, "completion": text, "reference": "3"} for n, text in enumerate(HOSTILE)]
    mmlu = [{"subject": "law", "id": n, "prediction": text, "answer": "A"} for n, text in enumerate(HOSTILE)]
    names = {"generator_1": "g", "generator_2": "h", "output_1": "a", "preference": 1.5}
    annotations = [{"instruction": f"{n}{text[:9]}", "output_2": text, **names} for n, text in enumerate(HOSTILE)]
    for kind, rows in (("math", math), ("mmlu", mmlu), ("alpaca-eval", annotations)):
        out = tmp_path / f"{kind}.out"
        assert main([kind, lines(tmp_path / f"{kind}.jsonl", rows), "-o", str(out)]) == 0
        json.loads(capsys.readouterr().out)
        assert len(out.read_text().splitlines()) == len(HOSTILE), kind
    verdicts = [json.loads(line)["verdict"] for line in (tmp_path / "math.out").read_text().splitlines()]
    assert verdicts[0] == "correct"
    assert "error" not in verdicts


MATH = [
    {"problem": "1/2 + 1/2?", "answer": "1"},
    {"problem": "6 * 7?", "answer": "42"},
]


@pytest.fixture
def evaluation_dir(tmp_path):
    """A finished evaluation of MATH-500 with two samples a problem, as an older grader left it."""
    config = {"name": "math-500", "source": lines(tmp_path / "math.jsonl", MATH)}
    document = {"policy": "model", "benchmarks": [config], "samples_per_example": 2}
    run_dir = tmp_path / "evaluation"
    run_dir.mkdir()
    (run_dir / "resolved_config.json").write_text(EvalConfig.model_validate(document).model_dump_json())
    texts = [r"\boxed{1}", r"\boxed{\frac22}", r"It is $42$", r"\boxed{41}"]
    examples = Math500(EvalConfig.model_validate(document).benchmarks[0]).examples
    completions = [
        Completion(
            benchmark="math-500",
            example_id=examples[number // 2].id,
            decoding="t0.6-p0.95",
            train_seed=0,
            eval_seed=3,
            sample_index=number % 2,
            prompt=examples[number // 2].prompt,
            completion=text,
            reference=examples[number // 2].reference,
            extracted=None,
            verdict="wrong",
            correct=False,
            value=0.0,
            truncated=False,
        )
        for number, text in enumerate(texts)
    ]
    (run_dir / "completions.jsonl").write_text("".join(map(completion_line, completions)))
    return run_dir


def test_completions_are_scored_again_by_todays_grader(evaluation_dir, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    assert main(["completions", str(evaluation_dir), "--benchmark", "math-500", "-o", str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["n_missing"], figures["num_changed"]) == (4, 0, 3)
    values = {(row["metric"], row["eval_seed"]): row["value"] for row in figures["results"]}
    assert (values["pass@1", 3], values["pass@2", 3], values["no-answer", 3]) == (0.5, 0.5, 0.25)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["verdict_before"], row["verdict"]) for row in rows] == [
        ("wrong", "correct"),
        ("wrong", "correct"),
        ("wrong", "no_answer"),
        ("wrong", "wrong"),
    ]


def test_another_extraction_is_another_configuration_of_the_same_completions(evaluation_dir, tmp_path, capsys):
    config = {"source": str(tmp_path / "math.jsonl"), "extraction": "any"}
    (tmp_path / "any.json").write_text(json.dumps(config))
    file = str(evaluation_dir / "completions.jsonl")
    assert main(["completions", file, "--benchmark", "math-500", "--config", str(tmp_path / "any.json")]) == 0
    values = {row["metric"]: row["value"] for row in json.loads(capsys.readouterr().out)["results"]}
    assert (values["pass@1"], values["pass@2"]) == (0.75, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "Solve: {problem}"}, "with another prompt"),
        ({"num_problems": 1}, "which the data does not have"),
        ({"magic": 1}, "magic"),
    ],
)
def test_completions_of_another_benchmark_configuration_are_refused(evaluation_dir, tmp_path, capsys, change, message):
    (tmp_path / "c.json").write_text(json.dumps({"source": str(tmp_path / "math.jsonl"), **change}))
    config = ["--benchmark", "math-500", "--config", str(tmp_path / "c.json")]
    assert main(["completions", str(evaluation_dir), *config]) == 2
    assert message in capsys.readouterr().err


def test_a_benchmark_that_the_evaluation_does_not_have_is_refused(evaluation_dir, capsys):
    assert main(["completions", str(evaluation_dir), "--benchmark", "amc-23"]) == 2
    assert "has math-500, not amc-23" in capsys.readouterr().err


def test_the_stage_publishes_the_results_of_a_second_scoring_under_their_configuration(evaluation_dir, tmp_path):
    stage = Stage(tmp_path / "run", [])
    benchmark = {"name": "math-500", "source": str(tmp_path / "math.jsonl")}
    scoring = {"name": "completions", "completions": str(evaluation_dir), "benchmark": benchmark}
    score(ScoreConfig.model_validate({"scoring": scoring}), stage)
    stage.close()
    results = json.loads((stage.run_dir / "results.json").read_text())
    [row] = [row for row in results["rows"] if row["metric"] == "pass@1"]
    assert (row["benchmark"], row["decoding"], row["value"]) == ("math-500", "t0.6-p0.95", 0.5)
    assert results["configurations"][row["configuration"]]["config"]["extraction"] == "boxed"
