"""Results of completions: their order and grouping decide nothing, and what our side failed to score counts nowhere."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import EvalConfig, SumsBenchmark
from evaluation.passes import Pass, passes_of
from evaluation.results import (
    completion_line,
    completion_of,
    read_completions,
    read_results,
    results_of,
    sampled_metrics,
)
from evaluation.types import Completion

VERDICTS = ("correct", "wrong", "no_answer", "timeout", "error")
SUMS = BENCHMARKS["sums"](SumsBenchmark())


def completion(example, sample, verdict, answer="1", truncated=False):
    is_scored = verdict != "error"
    return Completion(
        benchmark="sums", example_id=str(example), decoding="t1.0", train_seed=0, eval_seed=0, sample_index=sample,
        prompt="p", completion="c", reference="r", extracted=answer if verdict in ("correct", "wrong") else None,
        verdict=verdict, correct=verdict == "correct" if is_scored else None,
        value=float(verdict == "correct") if is_scored else None, truncated=truncated,
    )  # fmt: skip


@st.composite
def passes(draw):
    """Completions of up to six examples with two to four samples each."""
    num_samples = draw(st.integers(2, 4))
    some = [
        completion(example, sample, draw(st.sampled_from(VERDICTS)), draw(st.sampled_from("abc")), draw(st.booleans()))
        for example in range(draw(st.integers(1, 6)))
        for sample in range(num_samples)
    ]
    return num_samples, some


@given(passes(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_results_do_not_depend_on_the_order_of_completions(drawn, draw):
    num_samples, some = drawn
    one = Pass(SUMS, "t1.0", 0, num_samples)
    shuffled = draw.sample(some, len(some))
    expected, found = (results_of(one, each, [1, 2]) for each in (some, shuffled))
    for row, other in zip(expected, found, strict=True):
        assert row.value == pytest.approx(other.value)
        assert row.stderr_over_examples == pytest.approx(other.stderr_over_examples)
        same = {"value": None, "stderr_over_examples": None}
        assert dataclasses.replace(row, **same) == dataclasses.replace(other, **same)


@given(passes())
@settings(max_examples=60, deadline=None)
def test_sampled_metrics_equal_those_counted_over_every_choice_of_samples(drawn):
    num_samples, some = drawn
    found = sampled_metrics(some, [2], num_samples)
    for example in {each.example_id for each in some}:
        scored = [each.value for each in some if each.example_id == example and each.value is not None]
        pairs = list(itertools.combinations(scored, 2))
        assert (example in found["pass@2"]) == bool(pairs)
        if pairs:
            assert found["pass@2"][example] == pytest.approx(sum(max(pair) for pair in pairs) / len(pairs))
        if scored:
            assert found[f"mean@{num_samples}"][example] == pytest.approx(sum(scored) / len(scored))


def test_what_our_side_failed_to_score_is_left_out_and_never_zero():
    some = [
        completion(0, 0, "correct"),
        completion(0, 1, "error"),
        completion(1, 0, "wrong"),
        completion(1, 1, "wrong"),
    ]
    rows = {row.metric: row for row in results_of(Pass(SUMS, "t1.0", 0, 2), some, [2])}
    assert rows["pass@1"].value == rows["mean@2"].value == 0.5
    assert rows["pass@2"].value == 0.0, "of the one problem that has two scored samples"
    assert (rows["pass@1"].num_examples, rows["pass@1"].num_unscored) == (2, 1)
    nothing = results_of(Pass(SUMS, "t1.0", 0, 1), [completion(0, 0, "error")], [])
    assert [(row.metric, row.value) for row in nothing] == [("pass@1", None), ("no-answer", 0.0), ("truncated", 0.0)]


def test_the_standard_error_takes_the_samples_of_a_problem_as_one_cluster():
    some = [completion(example, sample, VERDICTS[example % 2]) for example in range(4) for sample in range(8)]
    row = next(row for row in results_of(Pass(SUMS, "t1.0", 0, 8), some, []) if row.metric == "pass@1")
    # by hand: problems at 1, 0, 1, 0: standard deviation sqrt(1/3), divided by sqrt(4)
    assert (row.value, row.stderr_over_examples) == (0.5, pytest.approx((1 / 3) ** 0.5 / 2))


def test_a_completion_is_read_as_it_was_written_whatever_its_text(tmp_path):
    hostile = ["\x00\x1b[31m", "{output_2} {{x}} %s", "\u2028\u2029\x85", "é" * 1000, "\\ud800"]
    written = [completion(number, 0, "wrong", text) for number, text in enumerate(hostile)]
    (tmp_path / "completions.jsonl").write_text("".join(map(completion_line, written)))
    assert list(read_completions(tmp_path)) == written
    assert len((tmp_path / "completions.jsonl").read_text().splitlines()) == len(hostile)
    torn = json.loads(completion_line(completion(0, 0, "wrong", "a\ud800b")))
    assert completion_of(torn).extracted == "a\ufffdb"


def test_records_that_are_none_are_refused_by_file_and_line(tmp_path):
    with pytest.raises(ValueError, match=r"completions\.jsonl: cannot be read"):
        list(read_completions(tmp_path))
    (tmp_path / "completions.jsonl").write_text(completion_line(completion(0, 0, "wrong")) + '{"a": 1}\n')
    with pytest.raises(ValueError, match=r"completions\.jsonl: line 2 is no completion"):
        list(read_completions(tmp_path))
    (tmp_path / "results.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match=r"results\.json: no readable results"):
        read_results(tmp_path)


def passes_named(**changes):
    document = {"policy": "p", "benchmarks": [{"name": "sums", "problems": {"split": "test", "num_problems": 3}}]}
    return list(passes_of(EvalConfig.model_validate(document | changes)))


def test_anything_that_changes_a_number_changes_the_configuration():
    def sums(max_tokens=64, **problems):
        return {"benchmarks": [{"name": "sums", "problems": {"split": "test", **problems}, "max_tokens": max_tokens}]}

    changes = [sums(), sums(num_problems=3), sums(seed=1), sums(max_tokens=9), {"decodings": ["greedy"]}]
    changes += [{"system_prompt": "Add."}, {"decodings": ["t1.0"]}, {"decodings": ["t0.6-p0.9"]}]
    hashes = {one.configuration_hash for change in changes for one in passes_named(**change)}
    assert len(hashes) == len(changes)


def test_seeds_samples_and_the_place_of_the_data_are_no_part_of_the_configuration(tmp_path):
    def gsm8k(directory):
        directory.mkdir()
        path = directory / "test.jsonl"
        path.write_text('{"question": "1+1?", "answer": "#### 2"}\n')
        return [{"name": "gsm8k", "problems": {"name": "gsm8k", "path": str(path)}}]

    first, second = gsm8k(tmp_path / "a"), gsm8k(tmp_path / "b")
    same = passes_named(benchmarks=first) + passes_named(benchmarks=second, eval_seeds=[5], samples_per_example=3)
    assert len({one.configuration_hash for one in same}) == 1
    assert str(tmp_path) not in json.dumps(same[0].configuration)


def test_seeds_of_requests_are_named_by_eval_seed_example_and_sample():
    one, other = (list(each.samples()) for each in passes_named(eval_seeds=[0, 1], samples_per_example=4))
    seeds = [sample.request.seed for sample in (*one, *other)]
    assert len(set(seeds)) == len(seeds) == 24
    again = list(passes_named(eval_seeds=[1], samples_per_example=2)[0].samples())
    chosen = [sample for sample in other if sample.request.sample_index < 2]
    assert [sample.request.seed for sample in again] == [sample.request.seed for sample in chosen]
