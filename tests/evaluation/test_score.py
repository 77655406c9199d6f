import gzip
import json

import pytest

from evaluation.score import score
from evaluation.score_config import ScoreConfig
from evaluation.scoring.__main__ import main
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
