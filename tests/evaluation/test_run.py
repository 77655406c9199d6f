"""An evaluation: complete, score, aggregate, resume; every number follows from the stored completions."""

import json
import os
import signal
from contextlib import closing

import pytest

from evaluation.config import EvalConfig
from evaluation.run import evaluate
from lco.answers import grade
from lco.manifest import read_manifest
from lco.prompts import make_sums
from lco.stage import EXIT_STOPPED, Stage
from tests.lco.launcher import records

SUMS = {
    "name": "sums",
    "problems": {"name": "sums", "split": "test", "num_problems": 20, "num_terms": 3},
    "max_tokens": 8,
}


@pytest.fixture
def document(tiny_model):
    return {
        "policy": str(tiny_model),
        "benchmarks": [SUMS],
        "decodings": ["t1.0", "greedy", "t0.6-p0.95"],
        "eval_seeds": [0, 7],
        "batch_size": 6,
        "seed": 4,
        "device": "cpu",
    }


def run(document, stage):
    evaluate(EvalConfig.model_validate(document), stage)
    return lines_of(stage.run_dir), json.loads((stage.run_dir / "results.json").read_text())["rows"]


def lines_of(run_dir):
    return [json.loads(line) for line in (run_dir / "completions.jsonl").read_text().splitlines()]


def test_every_number_can_be_recomputed_from_the_completions(document, stage):
    completions, rows = run(document, stage)
    assert len(completions) == 20 * (2 + 1 + 2)
    references = {
        prompt.id: prompt.reference for prompt in make_sums(EvalConfig.model_validate(document).benchmarks[0].problems)
    }
    for line in completions:
        graded = grade(line["completion"], references[line["example_id"]], "last-equals")
        assert line["reference"] == references[line["example_id"]]
        assert (line["extracted"], line["verdict"], line["correct"]) == (
            graded.extracted,
            graded.verdict,
            graded.is_correct,
        )
        assert line["train_seed"] == 4
        assert (line["eval_seed"] is None) == (line["decoding"] == "greedy")
    passes = [("t1.0", 0), ("t1.0", 7), ("greedy", None), ("t0.6-p0.95", 0), ("t0.6-p0.95", 7)]
    assert [(row["decoding"], row["eval_seed"]) for row in rows if row["metric"] == "pass@1"] == passes
    for row in rows:
        some = [c for c in completions if (c["decoding"], c["eval_seed"]) == (row["decoding"], row["eval_seed"])]
        counted = {
            "pass@1": sum(c["correct"] for c in some),
            "no-answer": sum(c["verdict"] == "no_answer" for c in some),
            "truncated": sum(c["truncated"] for c in some),
        }
        assert row["value"] == pytest.approx(counted[row["metric"]] / 20)
        assert (row["benchmark"], row["num_examples"], row["num_unscored"]) == ("sums", 20, 0)
    manifest = read_manifest(stage.run_dir)
    assert manifest.outputs == {"results": "results.json", "completions": "completions.jsonl"}
    assert manifest.details == {"benchmark_versions": {"sums": 1}}


def texts(completions, decoding, eval_seed):
    return [c["completion"] for c in completions if (c["decoding"], c["eval_seed"]) == (decoding, eval_seed)]


def test_a_completion_depends_on_its_eval_seed_and_example_alone(document, stage, tmp_path):
    completions, _ = run(document, stage)
    assert texts(completions, "t1.0", 0) != texts(completions, "t1.0", 7)
    changed = document | {"batch_size": 64, "seed": 99, "decodings": ["greedy", "t1.0"], "eval_seeds": [7]}
    with closing(Stage(tmp_path / "other", [])) as other:
        others, _ = run(changed, other)
    for decoding, seed in (("t1.0", 7), ("greedy", None)):
        assert texts(others, decoding, seed) == texts(completions, decoding, seed)


def test_progress_counts_completions_and_metrics_name_the_decoding(document, stage):
    run(document, stage)
    found = records(stage.run_dir)
    progress = [record["step"] for record in found if record["type"] == "progress"]
    assert progress == sorted(progress) and progress[-1] == 100
    names = {name for record in found if record["type"] == "metrics" for name in record["values"]}
    assert names == {"eval/sums/pass@1/t1.0", "eval/sums/pass@1/greedy", "eval/sums/pass@1/t0.6-p0.95"}


@pytest.mark.parametrize("damage", ["whole batches", "half a line", "half a batch", "binary", "nothing"])
def test_whole_batches_of_an_earlier_attempt_are_kept_and_the_rest_is_sampled_again(document, stage, tmp_path, damage):
    run(document, stage)
    whole = (stage.run_dir / "completions.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    left = {
        "whole batches": b"".join(lines[:12]),
        "half a line": b"".join(lines[:20]) + lines[20][:30],
        "half a batch": b"".join(lines[:9]),
        "binary": b"".join(lines[:7]) + b"\xff\x00\n" + b"".join(lines[8:]),
        "nothing": b"",
    }[damage]
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/completions.jsonl").write_bytes(left)
    with closing(Stage(tmp_path / "resumed", [tmp_path / "earlier"])) as resumed:
        run(document, resumed)
    assert (resumed.run_dir / "completions.jsonl").read_bytes() == whole
    assert (resumed.run_dir / "results.json").read_bytes() == (stage.run_dir / "results.json").read_bytes()
    kept = {"whole batches": 12, "half a line": 20, "half a batch": 6, "binary": 6, "nothing": 0}[damage]
    events = [record["message"] for record in records(resumed.run_dir) if record["type"] == "event"]
    assert events == ([f"resumed with {kept} completions"] if kept else [])


def test_a_second_run_in_the_same_directory_samples_nothing_again(document, stage):
    run(document, stage)
    first = (stage.run_dir / "manifest.json").read_bytes()
    with closing(Stage(stage.run_dir, [])) as again:
        run(document, again)
    assert (stage.run_dir / "manifest.json").read_bytes() == first
    assert records(stage.run_dir)[-1]["type"] == "metrics"
    assert sum(record["type"] == "progress" for record in records(stage.run_dir)) == 20


@pytest.mark.timeout(600)
def test_an_evaluation_killed_or_stopped_anywhere_leaves_the_same_bytes_when_resumed(document, launcher, tmp_path):
    document["benchmarks"] = [SUMS | {"problems": SUMS["problems"] | {"num_problems": 60}, "max_tokens": 20}]
    assert launcher.run("evaluation.run", document, tmp_path / "whole") == 0
    attempts = []
    for number, order in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
        process = launcher.start("evaluation.run", document, tmp_path / str(number), *reversed(attempts))
        process.wait_for("progress")
        os.kill(process.pid, order)
        assert process.wait() == (EXIT_STOPPED if order == signal.SIGTERM else -order)
        attempts.append(process.run_dir)
    assert launcher.run("evaluation.run", document, tmp_path / "last", *reversed(attempts)) == 0
    for name in ("completions.jsonl", "results.json", "manifest.json"):
        assert (tmp_path / "last" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
