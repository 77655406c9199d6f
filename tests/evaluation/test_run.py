"""An evaluation: complete, score, aggregate, resume; every number follows from the stored completions."""

import json
import os
import random
import signal
import time
from contextlib import closing

import pytest

from evaluation.config import EvalConfig
from evaluation.results import read_completions, read_results
from evaluation.run import evaluate
from lco.answers import grade
from lco.manifest import read_manifest
from lco.prompts import make_sums
from lco.stage import EXIT_STOPPED, Stage, Stopped
from tests.lco.launcher import records

SUMS = {
    "name": "sums",
    "problems": {"name": "sums", "split": "test", "num_problems": 20, "num_terms": 3},
    "max_tokens": 8,
}
FILES = ("completions.jsonl", "results.json", "manifest.json")
JOURNALS = ("generations.jsonl", "scores.jsonl")


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


def journal(run_dir, name):
    """The keys of the whole lines of a journal, as written."""
    path = run_dir / name
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["key"] for line in lines if line.endswith(b"\n")]


def test_every_number_can_be_recomputed_from_the_completions(document, stage):
    completions, rows = run(document, stage)
    assert len(completions) == 20 * (2 + 1 + 2)
    references = {
        prompt.id: prompt.reference for prompt in make_sums(EvalConfig.model_validate(document).benchmarks[0].problems)
    }
    for line in completions:
        graded = grade(line["completion"], references[line["example_id"]], "last-equals")
        assert line["reference"] == references[line["example_id"]]
        assert (line["extracted"], line["verdict"], line["correct"], line["value"]) == (
            graded.extracted,
            graded.verdict,
            graded.is_correct,
            float(graded.is_correct),
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
        share = counted[row["metric"]] / 20
        assert row["value"] == pytest.approx(share)
        assert row["stderr_over_examples"] == pytest.approx((share * (1 - share) / 19) ** 0.5)
        assert (row["benchmark"], row["num_examples"], row["num_unscored"]) == ("sums", 20, 0)
    manifest = read_manifest(stage.run_dir)
    assert manifest.outputs == {"results": "results.json", "completions": "completions.jsonl"}
    assert manifest.details == {"benchmark_versions": {"sums": 1}}
    assert manifest.step == 100


def test_results_name_what_was_measured(document, stage):
    run(document, stage)
    results = read_results(stage.run_dir)
    labels = {results.configurations[row.configuration]["decoding"] for row in results.rows}
    assert labels == {"t1.0", "greedy", "t0.6-p0.95"} and len(results.configurations) == 3
    configuration = results.configurations[results.rows[-1].configuration]
    assert (configuration["benchmark"], configuration["version"]) == ("sums", 1)
    assert (configuration["temperature"], configuration["top_p"]) == (0.6, 0.95)
    assert configuration["config"]["max_tokens"] == 8 and len(configuration["data_sha256"]) == 64
    assert results.policy == {"source": document["policy"], "fingerprint": results.policy["fingerprint"]}
    assert [c.example_id for c in read_completions(stage.run_dir)] == [
        line["example_id"] for line in lines_of(stage.run_dir)
    ]


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


def test_several_samples_of_an_example_differ_and_the_first_is_that_of_a_single_one(document, stage, tmp_path):
    document |= {"decodings": ["t1.0", "greedy"], "eval_seeds": [0]}
    single, _ = run(document, stage)
    with closing(Stage(tmp_path / "several", [])) as other:
        several, rows = run(document | {"samples_per_example": 4, "pass_at": [2, 4]}, other)
    assert len(several) == 20 * 5
    sampled = [line for line in several if line["decoding"] == "t1.0"]
    assert [line["sample_index"] for line in sampled] == [0, 1, 2, 3] * 20
    assert [line["completion"] for line in sampled[::4]] == texts(single, "t1.0", 0)
    assert len({line["completion"] for line in sampled[:4]}) > 1
    metrics = {decoding: [r["metric"] for r in rows if r["decoding"] == decoding] for decoding in ("t1.0", "greedy")}
    fixed = ["pass@1", "no-answer", "truncated"]
    assert metrics == {"t1.0": [*fixed, "pass@2", "maj@2", "pass@4", "maj@4", "mean@4"], "greedy": fixed}
    assert {row["num_examples"] for row in rows} == {20}


def test_several_benchmarks_are_measured_each_with_its_own_limits_in_the_order_given(document, stage, tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}+1=", "answer": f"#### {n + 1}"}) + "\n" for n in range(5)))
    problems = {"name": "gsm8k", "path": str(path), "instruction": "{question}"}
    other = {"name": "gsm8k", "problems": problems, "max_tokens": 3, "extraction": "final-number"}
    document |= {"benchmarks": [other, SUMS], "decodings": ["greedy", "t1.0"], "eval_seeds": [7]}
    completions, rows = run(document, stage)
    order = [(line["benchmark"], line["decoding"], line["eval_seed"]) for line in completions]
    passes = [(name, *one) for name in ("gsm8k", "sums") for one in (("greedy", None), ("t1.0", 7))]
    assert list(dict.fromkeys(order)) == passes and len(order) == 2 * (5 + 20)
    longest = {name: max(c["num_tokens"] for c in completions if c["benchmark"] == name) for name in ("gsm8k", "sums")}
    assert longest["gsm8k"] == 3 and 3 < longest["sums"] <= 8
    assert [
        (row["benchmark"], row["decoding"], row["eval_seed"]) for row in rows if row["metric"] == "pass@1"
    ] == passes


def test_progress_counts_what_is_made_and_what_is_scored(document, stage):
    run(document, stage)
    found = records(stage.run_dir)
    progress = [record for record in found if record["type"] == "progress"]
    steps = [record["step"] for record in progress]
    assert steps == sorted(steps) and steps[-1] == progress[-1]["total"] == 200
    assert progress[-1]["message"] == "all: 100 of 100 scored"
    names = {name for record in found if record["type"] == "metrics" for name in record["values"]}
    assert names == {"eval/sums/pass@1/t1.0", "eval/sums/pass@1/greedy", "eval/sums/pass@1/t0.6-p0.95"}


def test_a_second_run_in_the_same_directory_makes_and_scores_nothing_again(document, stage):
    run(document, stage)
    before = {name: (stage.run_dir / name).read_bytes() for name in (*FILES, *JOURNALS)}
    with closing(Stage(stage.run_dir, [])) as again:
        run(document, again)
    assert {name: (stage.run_dir / name).read_bytes() for name in (*FILES, *JOURNALS)} == before


def test_journals_cut_at_random_bytes_are_completed_to_the_same_files(document, stage, tmp_path):
    document |= {"decodings": ["t1.0"], "eval_seeds": [0]}
    run(document, stage)
    whole = {name: (stage.run_dir / name).read_bytes() for name in (*FILES, *JOURNALS)}
    draw = random.Random(20260301)
    for number in range(6):
        earlier = tmp_path / f"earlier-{number}"
        earlier.mkdir()
        # Scores are written when every generation is: a kill cuts one of the two.
        cut = {"generations.jsonl": whole["generations.jsonl"]}
        name = JOURNALS[number % 2]
        cut[name] = whole[name][: draw.randrange(len(whole[name]) + 1)]
        for file, content in cut.items():
            (earlier / file).write_bytes(content)
        with closing(Stage(tmp_path / f"resumed-{number}", [earlier])) as resumed:
            run(document, resumed)
        for name in FILES:
            assert (resumed.run_dir / name).read_bytes() == whole[name], (number, name)
        for name in JOURNALS:
            kept, made = journal(earlier, name), journal(resumed.run_dir, name)
            assert not set(kept) & set(made), "what is recorded is not made again"
            assert {*kept, *made} == set(journal(stage.run_dir, name))


def test_an_order_to_stop_is_followed_between_batches_and_loses_nothing(document, stage, tmp_path):
    stage.stop()
    with pytest.raises(Stopped):
        run(document, stage)
    assert len(journal(stage.run_dir, "generations.jsonl")) == 6
    with closing(Stage(tmp_path / "resumed", [stage.run_dir])) as resumed:
        run(document, resumed)
    assert len(journal(resumed.run_dir, "generations.jsonl")) == 94
    events = [record["message"] for record in records(resumed.run_dir) if record["type"] == "event"]
    assert events == ["resumed with 6 completions"]


def test_other_weights_share_no_record(document, stage, tmp_path, tiny_policy):
    run(document, stage)
    tiny_policy.model.model.embed_tokens.weight.data *= 1.5
    tiny_policy.save(tmp_path / "other-model")
    with closing(Stage(tmp_path / "resumed", [stage.run_dir])) as resumed:
        run(document | {"policy": str(tmp_path / "other-model")}, resumed)
    assert len(journal(resumed.run_dir, "generations.jsonl")) == 100


def test_prompts_that_do_not_fit_are_errors_of_their_own_and_counted(document, stage, tmp_path):
    rows = [{"question": "1+1=", "answer": "#### 2"}] * 9 + [{"question": "1+" * 40 + "1=", "answer": "#### 41"}]
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(
        "".join(json.dumps(row | {"question": f"{n};{row['question']}"}) + "\n" for n, row in enumerate(rows))
    )
    problems = {"name": "gsm8k", "path": str(path), "instruction": "{question}"}
    benchmark = {"name": "gsm8k", "problems": problems, "max_tokens": 8, "extraction": "final-number"}
    document |= {"benchmarks": [benchmark], "decodings": ["greedy"], "max_error_rate": 0.1}
    completions, found = run(document, stage)
    last = completions[-1]
    assert (last["verdict"], last["value"], last["correct"], last["completion"]) == ("error", None, None, "")
    assert "exceed the model's 64 positions" in last["reason"]
    assert {(row["num_examples"], row["num_unscored"]) for row in found} == {(10, 1)}
    with (
        closing(Stage(tmp_path / "strict", [])) as strict,
        pytest.raises(ValueError, match=r"1 of 10 .* max_error_rate 0\.05"),
    ):
        run(document | {"max_error_rate": 0.05}, strict)


@pytest.mark.timeout(600)
def test_an_evaluation_killed_or_stopped_anywhere_leaves_the_same_bytes_when_resumed(document, launcher, tmp_path):
    document["benchmarks"] = [SUMS | {"problems": SUMS["problems"] | {"num_problems": 60}, "max_tokens": 20}]
    sweep(document, launcher, tmp_path, [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_an_evaluation_killed_at_twenty_places_leaves_the_same_bytes_when_resumed(document, launcher, tmp_path):
    document["benchmarks"] = [SUMS | {"problems": SUMS["problems"] | {"num_problems": 300, "num_terms": 4}}]
    document |= {"batch_size": 4, "samples_per_example": 2}
    sweep(document, launcher, tmp_path, [signal.SIGKILL] * 20)


def sweep(document, launcher, directory, orders):
    """Ends an evaluation by each signal at a random place and resumes it; compares with one that was left alone."""
    assert launcher.run("evaluation.run", document, directory / "whole") == 0
    total = written([directory / "whole"])
    draw = random.Random(20260301)
    attempts = []
    for number, order in enumerate(orders):
        attempts.append(directory / str(number))
        process = launcher.start("evaluation.run", document, *reversed(attempts))
        place = total * (number + draw.random()) / len(orders)
        deadline = time.monotonic() + 60
        while written(attempts) < place and time.monotonic() < deadline:
            time.sleep(draw.uniform(0.0, 0.005))
        os.kill(process.pid, order)
        assert process.wait() == (EXIT_STOPPED if order == signal.SIGTERM else -order)
    assert launcher.run("evaluation.run", document, directory / "last", *reversed(attempts)) == 0
    for name in FILES:
        assert (directory / "last" / name).read_bytes() == (directory / "whole" / name).read_bytes()
    for name in JOURNALS:
        made = [key for attempt in [*attempts, directory / "last"] for key in journal(attempt, name)]
        assert sorted(made) == sorted(journal(directory / "whole", name)), "nothing recorded was made again"
    assert sum(bool(journal(attempt, "generations.jsonl")) for attempt in attempts) > 1, "the kills fell too early"


def written(run_dirs):
    """Bytes of all journals."""
    paths = [run_dir / name for run_dir in run_dirs for name in JOURNALS]
    return sum(path.stat().st_size for path in paths if path.exists())
