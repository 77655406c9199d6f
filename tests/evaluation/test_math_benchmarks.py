"""The math benchmarks: their rows, prompts and references; what a configuration changes; their own solutions."""

import json
import os
from pathlib import Path

import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.graders import Graders
from evaluation.math_config import Aime24Benchmark, Amc23Benchmark, Math500Benchmark, MinervaMathBenchmark
from evaluation.types import Item

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data"))
CONFIGS = {"math-500": Math500Benchmark, "amc-23": Amc23Benchmark, "minerva-math": MinervaMathBenchmark,
           "aime-24": Aime24Benchmark}  # fmt: skip


@pytest.fixture(scope="module")
def graders(tmp_path_factory):
    with Graders(tmp_path_factory.mktemp("graders")) as opened:
        yield opened


@pytest.fixture
def make(tmp_path):
    def make(name, rows, **fields):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return BENCHMARKS[name](CONFIGS[name](source=str(path), **fields))

    return make


def verdict(benchmark, example, completion, graders):
    return benchmark.score(example, completion, graders).verdict


def test_the_prompt_asks_for_steps_and_a_box_and_another_prompt_is_a_field(make):
    (example,) = make("math-500", [{"problem": "What is {2}?", "answer": "2"}]).load()
    assert example.prompt == ("What is {2}?\nPlease reason step by step, and put your final answer within \\boxed{}.")
    assert not example.is_raw
    raw = make(
        "math-500",
        [{"problem": "What is {problem}?", "answer": "2"}],
        prompt="Problem:\n{problem}\n\nSolution:",
        is_raw=True,
        stop=["Problem:"],
    )
    assert raw.load()[0].prompt == "Problem:\nWhat is {problem}?\n\nSolution:"
    assert raw.load()[0].is_raw


@pytest.mark.parametrize("prompt", ["no place", "{problem} {problem}"])
def test_a_prompt_without_one_place_for_the_problem_is_refused(prompt):
    with pytest.raises(ValueError, match=r"needs \{problem\} once"):
        Math500Benchmark(source="x.jsonl", prompt=prompt)


def test_amc_references_are_floats_compared_as_integers(make, graders):
    benchmark = make("amc-23", [{"problem": "p", "question": "p, as an integer", "answer": 27.0}])
    (example,) = benchmark.load()
    assert example.reference == "27"
    assert example.prompt.startswith("p, as an integer")
    assert verdict(benchmark, example, r"\boxed{27}", graders) == "correct"
    assert verdict(benchmark, example, r"\boxed{27.0}", graders) == "correct"
    assert verdict(benchmark, example, r"\boxed{27.001}", graders) == "wrong"


def test_minerva_references_are_the_last_box_and_rounded(make, graders):
    rows = [
        {"problem": "a", "solution": r"first \boxed{1} then $=\boxed{4.5e33} \mathrm{~erg}$"},
        {"problem": "b", "solution": r"\boxed{6630}"},
    ]
    benchmark = make("minerva-math", rows)
    first, second = benchmark.load()
    assert first.reference == "4.5e33"
    assert verdict(benchmark, first, r"\boxed{4.5 \times 10^{33}\ \text{erg s}^{-1}}", graders) == "correct"
    assert verdict(benchmark, first, r"\boxed{4.5 \times 10^{34}}", graders) == "wrong"
    assert verdict(benchmark, second, r"\boxed{6630.3}", graders) == "correct"
    assert verdict(benchmark, second, r"\boxed{6640}", graders) == "wrong"
    coarse = make("minerva-math", rows, relative_tolerance=0.01)
    assert verdict(coarse, second, r"\boxed{6640}", graders) == "correct"


def test_a_leading_zero_of_an_aime_answer_means_nothing(make, graders):
    benchmark = make("aime-24", [{"problem": "p", "answer": "033"}])
    (example,) = benchmark.load()
    assert verdict(benchmark, example, r"\boxed{33}", graders) == "correct"


def test_only_a_box_or_a_declared_answer_counts_unless_the_configuration_says_any(make, graders):
    rows = [{"problem": "p", "answer": "12"}]
    strict, lenient = make("math-500", rows), make("math-500", rows, extraction="any")
    for text, boxed in ((r"\boxed{12}", "correct"), ("The final answer is $12$.", "correct"), ("so 12", "no_answer")):
        assert verdict(strict, strict.load()[0], text, graders) == boxed
        assert verdict(lenient, lenient.load()[0], text, graders) == "correct"


def test_many_items_are_graded_at_once_and_keep_their_positions(make, graders):
    benchmark = make("math-500", [{"problem": f"p{n}", "answer": rf"\sqrt{{{n}}}"} for n in range(2, 30)])
    items = [
        Item(position=number, example=example, completion=rf"\boxed{{\sqrt{{{4 * (number + 2)}}} / 2}}")
        for number, example in enumerate(benchmark.load())
    ]
    scores = dict(benchmark.score_all(items[::-1], graders))
    assert sorted(scores) == [item.position for item in items]
    assert all(score.verdict == "correct" for score in scores.values())


@pytest.mark.parametrize(
    ("name", "rows", "complaint"),
    [
        ("math-500", [{"problem": "p"}], "row 1 has no text field 'answer'"),
        ("math-500", [{"problem": "p", "answer": "1"}, {"problem": "p", "answer": "1"}], "row 2 repeats a problem"),
        ("math-500", [{"problem": " ", "answer": "1"}], "row 1 has an empty problem"),
        ("math-500", [], "has no rows"),
        ("minerva-math", [{"problem": "p", "solution": "no box"}], "row 1 has no boxed answer"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_its_row(make, name, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(name, rows).load()


def test_a_different_configuration_or_file_has_a_different_manifest(make):
    rows = [{"problem": "p", "answer": "1"}, {"problem": "q", "answer": "2"}]
    manifest = make("math-500", rows).manifest()
    assert make("math-500", rows).manifest() == manifest
    assert make("math-500", rows, num_problems=1).manifest() != manifest
    assert make("math-500", [{**rows[0], "answer": "3"}, rows[1]]).manifest() != manifest


def test_a_grader_that_cannot_start_is_told_before_anything_is_generated(tmp_path, make, monkeypatch):
    monkeypatch.setattr("lco.grading.pool.WORKER", Path("/nonexistent/worker.py"))
    benchmark = make("math-500", [{"problem": "p", "answer": "1"}])
    with Graders(tmp_path) as broken, pytest.raises(ValueError, match="formulas cannot be graded here"):
        benchmark.prepare(broken)


def test_what_graders_found_is_kept_for_the_next_attempt(tmp_path, make):
    benchmark = make("math-500", [{"problem": "p", "answer": r"2\sqrt{2}"}])
    (example,) = benchmark.load()
    with Graders(tmp_path / "first") as first:
        assert verdict(benchmark, example, r"\boxed{\sqrt{8}}", first) == "correct"
    with Graders(tmp_path / "second", [tmp_path / "first"]) as second:
        assert verdict(benchmark, example, r"\boxed{\sqrt{8}}", second) == "correct"
        assert second.math.process_ids() == []


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("math-500", "math500_test.jsonl", 500),
        ("amc-23", "amc23_test.jsonl", 40),
        ("minerva-math", "minerva_math_test.jsonl", 272),
        ("aime-24", "aime24_test.jsonl", 30),
    ],
)
def test_every_reference_in_a_box_is_right_by_its_own_benchmark(graders, name, file, count):
    path = SHARED / "math" / file
    if not path.exists():
        pytest.skip(f"{path} is absent: it is research data that the project does not carry")
    benchmark = BENCHMARKS[name](CONFIGS[name](source=str(path)))
    examples = benchmark.load()
    assert len(examples) == count
    for example in examples:
        assert verdict(benchmark, example, rf"\boxed{{{example.reference}}}", graders) == "correct", example
