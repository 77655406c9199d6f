import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from evaluation.statistics import mcnemar_p
from store.significance import (
    bootstrap_interval,
    holm,
    incomplete_beta,
    paired_t_p,
    sign_flip_p,
    t_cdf,
    t_interval,
    t_quantile,
)

VALUES = st.lists(st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3)), min_size=2, max_size=8)


@pytest.mark.parametrize("degrees", [1, 2, 3, 7, 30, 1000])
def test_students_t_is_that_of_scipy(degrees):
    for statistic in (-40.0, -2.5, -0.1, 0.0, 0.3, 1.96, 12.0):
        assert t_cdf(statistic, degrees) == pytest.approx(stats.t.cdf(statistic, degrees), rel=1e-10, abs=1e-15)
    for share in (0.005, 0.3, 0.5, 0.9, 0.975, 0.9995):
        assert t_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=1e-9, abs=1e-12)


@given(st.floats(0.3, 50), st.floats(0.3, 50), st.floats(0.001, 0.999))
def test_the_incomplete_beta_function_is_that_of_scipy(a, b, x):
    assert incomplete_beta(a, b, x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-13)


@given(VALUES)
def test_the_interval_of_the_mean_is_students(values):
    interval = t_interval(values)
    if len(set(values)) == 1:
        assert (interval.low, interval.high) == pytest.approx((values[0], values[0]))
        return
    low, high = stats.t.interval(0.95, len(values) - 1, loc=math.fsum(values) / len(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-8, abs=1e-9)


@given(VALUES)
def test_the_paired_t_test_is_that_of_scipy(differences):
    if len(set(differences)) == 1:
        assert paired_t_p(differences) == (1.0 if differences[0] == 0 else 0.0)
        return
    assert paired_t_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-7, abs=1e-12)


@given(st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8))
def test_the_sign_flip_test_counts_every_flip(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    hits = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in flips)
    assert sign_flip_p(differences) == hits / len(flips)


def test_four_seeds_cannot_be_significant_without_an_assumption():
    assert sign_flip_p([1.0, 2.0, 3.0, 4.0]) == 0.125


def test_many_pairs_are_flipped_at_random_and_agree_with_the_exact_value():
    generator = random.Random(1)
    differences = [generator.gauss(0.3, 1) for _ in range(40)]
    assert sign_flip_p(differences) == pytest.approx(paired_t_p(differences), abs=0.02)


def test_of_many_tests_that_are_true_nulls_holm_finds_any_in_five_per_cent():
    generator = random.Random(3)
    hits = 0
    for _ in range(400):
        p_values = [generator.random() for _ in range(6)]
        hits += min(holm(p_values)) < 0.05
    assert hits / 400 == pytest.approx(0.05, abs=0.033)  # three standard errors


@given(st.lists(st.none() | st.floats(0, 1), max_size=6))
def test_holm_keeps_the_order_and_never_lowers_a_p_value(p_values):
    adjusted = holm(p_values)
    pairs = sorted((p, q) for p, q in zip(p_values, adjusted, strict=True) if p is not None)
    assert all(q >= p for p, q in pairs)
    assert all(first[1] <= second[1] for first, second in itertools.pairwise(pairs))
    assert [p is None for p in p_values] == [q is None for q in adjusted]


def test_holm_is_that_of_the_textbook():
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])


def test_mcnemar_is_the_exact_binomial_test():
    for wins, losses in ((0, 5), (3, 9), (10, 10), (700, 650)):
        expected = stats.binomtest(wins, wins + losses).pvalue
        assert mcnemar_p(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p(0, 0) is None


def test_the_bootstrap_interval_holds_the_mean_and_says_the_same_twice():
    values = [0.4, 0.5, 0.7, 0.6]
    interval = bootstrap_interval(values)
    assert interval.low < 0.55 < interval.high
    assert bootstrap_interval(values) == interval
    assert bootstrap_interval([1.0]) is None
