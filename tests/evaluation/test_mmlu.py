"""MMLU and MMLU-Redux: lm-eval's prompt, both forms, what is counted, and a whole evaluation."""

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import EvalConfig
from evaluation.mmlu_config import GenerativeForm, MmluBenchmark, MmluReduxBenchmark
from evaluation.run import evaluate
from evaluation.types import Completion, Item
from lco.config import LlamaInit, StageConfig
from lco.initial import initial_policy

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data")) / "mmlu"

ROWS = [
    {"subject": subject, "question": f" {subject} {n}? ", "choices": ["1", "2", "3", "4"], "answer": answer}
    for subject, answers in (("abstract_algebra", "BDA"), ("law", "CC"))
    for n, answer in enumerate(answers)
]
DEV = [
    {"subject": subject, "question": f"{subject} shot {n}?", "choices": ["a", "b", "c", "d"], "answer": n % 4}
    for n in range(5)
    for subject in ("law", "abstract_algebra")
]


@pytest.fixture
def files(tmp_path):
    return written(tmp_path, ROWS, DEV)


def written(directory, rows, dev=()):
    paths = {"source": directory / "rows.jsonl", "dev": directory / "dev.jsonl"}
    for path, some in zip(paths.values(), (rows, dev), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: str(path) for name, path in paths.items()}


def mmlu(files, **changes):
    return BENCHMARKS["mmlu"](MmluBenchmark(**files, **changes))


def redux(files, **changes):
    return BENCHMARKS["mmlu-redux"](MmluReduxBenchmark(**files, num_shots=0, **changes))


def completions(benchmark, verdicts, **changes):
    values = {"correct": 1.0, "wrong": 0.0, "no_answer": 0.0, "error": None}
    return [
        Completion(
            benchmark=benchmark.name,
            example_id=example.id,
            decoding="likelihood",
            train_seed=0,
            eval_seed=None,
            prompt="",
            completion="",
            reference=example.reference,
            extracted=None,
            verdict=verdict,
            correct=verdict == "correct",
            value=values[verdict],
            truncated=False,
            **changes,
        )
        for example, verdict in zip(benchmark.examples, verdicts, strict=True)
    ]


def test_the_likelihood_prompt_is_the_one_of_lm_eval(files):
    example = mmlu(files, num_shots=2).examples[0]
    assert example.prompt == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "abstract_algebra shot 0?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n"
        "abstract_algebra shot 1?\nA. a\nB. b\nC. c\nD. d\nAnswer: B\n\n"
        "abstract_algebra 0?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert (example.choices, example.is_raw, example.reference) == ((" A", " B", " C", " D"), True, "B")
    assert (example.id, example.extra) == ("mmlu/abstract_algebra/0", {"subject": "abstract_algebra"})


def test_the_generative_prompt_has_the_same_block_and_asks_for_a_last_line(files):
    example = mmlu(files, num_shots=1, form=GenerativeForm(instruction="About {subject} {x}:")).examples[-1]
    assert example.prompt == (
        "About law {x}:\n\nlaw shot 0?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\nlaw 1?\nA. 1\nB. 2\nC. 3\nD. 4"
    )
    assert (example.choices, example.is_raw) == ((), False)


def test_without_shots_no_dev_file_is_read(files):
    assert mmlu({**files, "dev": "/nowhere.jsonl"}, num_shots=0).examples[0].prompt.count("Answer:") == 1


def test_the_chosen_subjects_alone_are_asked(files):
    assert [example.extra["subject"] for example in mmlu(files, subjects=["law"]).examples] == ["law", "law"]
    with pytest.raises(ValueError, match="subjects: the data has no chemistry"):
        mmlu(files, subjects=["law", "chemistry"]).load()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"choices": ["1", "2", "3"]}, "row 1 has no list `choices` of four texts"),
        ({"answer": "E"}, "row 1 has no `answer`"),
        ({"answer": 4}, "row 1 has no `answer`"),
        ({"answer": True}, "row 1 has no `answer`"),
        ({"question": None}, "row 1 has no text field 'question'"),
        ({"subject": "history"}, "has no rows of history"),
        ({"index": 1}, "two rows have the same subject and index"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        mmlu(written(tmp_path, [ROWS[0] | change, *ROWS[1:]], DEV)).load()


def test_a_dev_split_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(ValueError, match="abstract_algebra has fewer than 5 rows"):
        mmlu(written(tmp_path, ROWS, DEV[:-1])).load()


def test_a_hub_source_names_a_revision():
    with pytest.raises(ValidationError, match="40-hex revision"):
        MmluBenchmark(source="hub:cais/mmlu@main/all/test.parquet")
    assert MmluBenchmark().source == BENCHMARKS["mmlu"].default_source


def test_the_generative_form_grades_the_declared_letter(files, graders):
    benchmark = mmlu(files, form=GenerativeForm())
    first = benchmark.examples[0]
    found = [benchmark.score(first, text, graders) for text in ("A is odd.\nAnswer: B", "Answer: A", "A thought", "")]
    assert [(score.value, score.verdict, score.extracted) for score in found] == [
        (1.0, "correct", "B"),
        (0.0, "wrong", "A"),
        (0.0, "no_answer", None),
        (0.0, "no_answer", None),
    ]


def test_a_tie_between_choices_is_recorded(files, graders):
    benchmark = mmlu(files)
    item = Item(position=0, example=benchmark.examples[0], completion=" B", choice_logprobs=(-2.0, -1.0, -1.0, -3.0))
    score = benchmark.score_item(item, graders)
    assert (score.value, score.extracted, score.details, score.values) == (1.0, "B", {"tied": ["B", "C"]}, {"tie": 1.0})


def test_accuracies_are_told_over_questions_subjects_and_answered_ones(files):
    benchmark = mmlu(files)
    verdicts = ["correct", "wrong", "no_answer", "correct", "error"]
    some = completions(benchmark, verdicts)
    found = benchmark.aggregate(some)
    assert found == {
        "accuracy": 0.5,
        "macro-accuracy": pytest.approx(2 / 3),
        "answered-accuracy": pytest.approx(2 / 3),
        "answered-macro-accuracy": 0.75,
        "no-answer": 0.2,
        "truncated": 0.0,
        "ties": 0.0,
        "accuracy/abstract_algebra": pytest.approx(1 / 3),
        "accuracy/law": 1.0,
    }
    assert tuple(found)[: len(benchmark.metrics)] == benchmark.metrics
    assert benchmark.aggregate(some[::-1]) == found
    assert benchmark.standard_errors(some)["accuracy/abstract_algebra"] == pytest.approx((2 / 9 / 3) ** 0.5)


def test_several_samples_of_a_question_are_one_question(files):
    benchmark = mmlu(files, form=GenerativeForm())
    some = completions(benchmark, ["correct"] * 5) + completions(benchmark, ["no_answer"] * 5, sample_index=1)
    found = benchmark.aggregate(some)
    assert (found["accuracy"], found["answered-accuracy"], found["no-answer"]) == (0.5, 1.0, 0.5)


def test_redux_tells_the_questions_without_an_error_first(tmp_path):
    types = ["ok", "wrong_groundtruth", "ok", "ok", "expert"]
    rows = [row | {"error_type": kind} for row, kind in zip(ROWS, types, strict=True)]
    benchmark = redux(written(tmp_path, rows))
    found = benchmark.aggregate(completions(benchmark, ["correct", "wrong", "wrong", "correct", "wrong"]))
    assert next(iter(found)) == benchmark.metrics[0] == "ok-accuracy"
    assert (found["ok-accuracy"], found["ok-macro-accuracy"]) == (pytest.approx(2 / 3), 0.75)
    assert (found["accuracy"], found["macro-accuracy"]) == (0.4, pytest.approx((1 / 3 + 1 / 2) / 2))


def test_a_whole_evaluation_compares_the_choices_as_the_model_does(files, tmp_path, stage):
    characters = "".join(map(chr, range(32, 127))) + "\n"
    init = LlamaInit(characters=characters, hidden_size=16, intermediate_size=32, num_layers=1, max_positions=400)
    policy = initial_policy(init, StageConfig(device="cpu"))
    policy.save(tmp_path / "model")
    benchmark = {"name": "mmlu", **files, "num_shots": 1}
    evaluate(
        EvalConfig.model_validate({"policy": str(tmp_path / "model"), "benchmarks": [benchmark], "device": "cpu"}),
        stage,
    )
    lines = [json.loads(line) for line in (stage.run_dir / "completions.jsonl").read_text().splitlines()]
    for line in lines:
        wanted = []
        for letter in "ABCD":
            ids = policy.tokenizer.encode(line["prompt"] + f" {letter}", add_special_tokens=False, return_tensors="pt")
            logprobs = policy.model(ids).logits[0].log_softmax(-1)
            wanted.append(sum(logprobs[-1 - back, ids[0, -back]].item() for back in (1, 2)))
        assert line["choice_logprobs"] == pytest.approx(wanted, abs=1e-4)
        assert line["extracted"] == "ABCD"[wanted.index(max(wanted))]
        assert line["correct"] == (line["extracted"] == line["reference"])
    rows = {row["metric"]: row for row in json.loads((stage.run_dir / "results.json").read_text())["rows"]}
    assert rows["accuracy"]["value"] == sum(line["correct"] for line in lines) / 5
    assert rows["accuracy"]["decoding"] == "likelihood" and "accuracy/law" in rows


@pytest.fixture(scope="module")
def shared():
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED} (see LCO_SHARED_DATA)")
    return SHARED


def test_mmlu_has_14042_questions_in_57_subjects(shared):
    files = {"source": str(shared / "mmlu_test.jsonl.gz"), "dev": str(shared / "mmlu_dev.jsonl.gz")}
    examples = mmlu(files).examples
    assert (len(examples), len({example.extra["subject"] for example in examples})) == (14_042, 57)
    assert all(example.prompt.count("\nAnswer:") >= 6 and example.prompt.endswith("\nAnswer:") for example in examples)
    assert len({example.id for example in examples}) == 14_042


def test_redux_has_5330_questions_without_an_error_of_5700(shared):
    examples = redux({"source": str(shared / "mmlu_redux2_5700.jsonl.gz")}).examples
    kinds = [example.extra["error_type"] for example in examples]
    assert (len(kinds), kinds.count("ok"), kinds.count("wrong_groundtruth")) == (5700, 5330, 107)
