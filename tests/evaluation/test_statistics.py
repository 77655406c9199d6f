"""Pass@k, maj@k, spread and error: against enumeration, against published numbers, in any order."""

import gzip
import itertools
import json
import math
import os
import statistics
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.statistics import (
    clustered_standard_error,
    maj_at_k,
    mean_of,
    mean_pass_at_k,
    naive_standard_error,
    pass_at_k,
    std_over_seeds,
)

SHARED = Path(os.environ.get("LCO_SHARED_DATA", Path(__file__).parents[2].parent / "shared/data"))
DATA = SHARED / "math_grading/model_outputs"

SAMPLES = st.lists(st.sampled_from(["right", "a", "b", "c", None]), min_size=1, max_size=7)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(samples, k):
    value = pass_at_k(len(samples), sum(samples), k)
    if k > len(samples):
        assert value is None
        return
    subsets = list(itertools.combinations(samples, k))
    assert value == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_of_many_samples_neither_overflows_nor_cancels():
    assert pass_at_k(100_000, 1, 1) == pytest.approx(1e-5, rel=1e-9)
    assert pass_at_k(5000, 4000, 2500) == 1.0
    assert pass_at_k(10, 0, 10) == 0.0


@pytest.mark.parametrize(("num_samples", "num_correct", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(num_samples, num_correct, k):
    with pytest.raises(ValueError, match=r"cannot be correct|no number of samples"):
        pass_at_k(num_samples, num_correct, k)


def test_one_problem_with_too_few_samples_leaves_the_mean_undefined():
    assert mean_pass_at_k([(4, 2), (3, 3)], 4) is None
    assert mean_pass_at_k([(4, 2), (3, 3)], 3) == 1.0
    assert mean_pass_at_k([], 1) is None
    assert mean_of([0.5, None]) is None


@given(SAMPLES, st.integers(1, 7))
def test_maj_at_k_is_the_expectation_over_subsets(samples, k):
    value = maj_at_k(samples, [sample == "right" for sample in samples], k)
    if k > len(samples):
        assert value is None
        return
    won = []
    for subset in itertools.combinations(samples, k):
        votes = Counter(sample for sample in subset if sample is not None)
        best = max(votes.values(), default=0)
        leaders = [answer for answer, count in votes.items() if count == best]
        won.append(1 / len(leaders) if "right" in leaders else 0)
    assert value == pytest.approx(statistics.mean(won), abs=1e-12)


@given(SAMPLES, st.integers(1, 7), st.randoms(use_true_random=False))
def test_maj_at_k_is_the_same_in_any_order(samples, k, random):
    shuffled = random.sample(samples, len(samples))
    assert maj_at_k(samples, [s == "right" for s in samples], k) == pytest.approx(
        maj_at_k(shuffled, [s == "right" for s in shuffled], k)
    )


def test_differently_written_correct_answers_vote_together():
    assert maj_at_k(["1/2", "0.5", "7", "8"], [True, True, False, False], 4) == 1.0


def test_maj_at_k_of_many_samples_is_fast_enough_for_a_table():
    answers = [str(number % 40) for number in range(256)]
    value = maj_at_k(answers, [answer == "0" for answer in answers], 16)
    assert value is not None
    assert 0 < value < 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_spread_and_error_are_the_textbook_ones_in_any_order(values, random):
    shuffled = random.sample(values, len(values))
    assert std_over_seeds(shuffled) == std_over_seeds(values) == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert clustered_standard_error(values) == pytest.approx(
        statistics.stdev(values) / math.sqrt(len(values)), abs=1e-12
    )


def test_one_seed_or_problem_has_no_spread():
    assert std_over_seeds([0.5]) is None
    assert clustered_standard_error([0.5]) is None
    assert naive_standard_error(1, 1) is None


def test_published_verdicts_of_eight_samples_give_the_published_metrics():
    path = DATA / "qwen25_math_n8_first50.jsonl.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: it is research data that the project does not carry")
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    published = json.loads((DATA / "qwen25_math_n8_first50.metrics.json").read_text())
    counts = [(len(row["peer_verdicts"]), sum(row["peer_verdicts"])) for row in rows]
    for k in (1, 2, 4, 8):
        assert 100 * mean_pass_at_k(counts, k) == pytest.approx(published[f"pass@{k}"], abs=1e-9)
    shares = [correct / number for number, correct in counts]
    assert 100 * clustered_standard_error(shares) == pytest.approx(published["pass@1_clustered_se"], abs=1e-9)
    total = sum(number for number, _ in counts), sum(correct for _, correct in counts)
    assert 100 * naive_standard_error(*total) == pytest.approx(published["pass@1_naive_se_ignoring_clusters"], abs=2e-3)
    majority = mean_of([maj_at_k(row["extracted"], row["peer_verdicts"], 8) for row in rows])
    assert 100 * majority == pytest.approx(published["maj@8"], abs=1e-9)
