"""Random numbers that depend on names, not on the order of calls."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lco.seeds import derived_seed, uniforms

SEEDS = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20)


def test_a_derived_seed_is_the_same_on_every_machine():
    assert derived_seed(0, "rollout", 3) == 5866481908479691233
    assert derived_seed("eval", 1, "sums/1+2=", 0) == 745272891826057746


def test_uniforms_are_the_published_splitmix64():
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    expected = [
        (number >> 11) * 2.0**-53 for number in published
    ]  # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    assert uniforms([1234567], 5)[0].tolist() == expected


def test_derived_seeds_of_different_names_differ():
    seeds = {derived_seed(seed, kind, number) for seed in range(20) for kind in ("a", "b") for number in range(50)}
    assert len(seeds) == 20 * 2 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(SEEDS, st.integers(1, 40))
def test_uniforms_lie_in_the_half_open_unit_interval_on_a_53_bit_grid(seeds, count):
    values = uniforms(seeds, count)
    assert values.shape == (len(seeds), count)
    assert ((values >= 0) & (values < 1)).all()
    assert np.array_equal(values * 2**53, np.floor(values * 2**53))


@given(SEEDS, st.integers(1, 20))
def test_a_row_depends_on_its_seed_alone_and_a_column_on_nothing_before_it(seeds, count):
    values = uniforms(seeds, count)
    assert np.array_equal(values[::-1], uniforms(seeds[::-1], count))
    assert np.array_equal(values[-1:], uniforms(seeds[-1:], count))
    assert np.array_equal(values, uniforms(seeds, count + 7)[:, :count])


def test_uniforms_are_uniform_and_uncorrelated():
    values = uniforms([derived_seed("uniformity", n) for n in range(2000)], 16)
    counts, _ = np.histogram(values, bins=64, range=(0, 1))
    expected = values.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 110  # the 99.98 % point of chi-square with 63 degrees
    correlation = np.corrcoef(values.T) - np.eye(16)
    assert np.abs(correlation).max() < 0.1


def test_neighbouring_seeds_give_unrelated_rows():
    values = uniforms(list(range(4000)), 2)
    assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(values[:-1, 1], values[1:, 0])[0, 1]) < 0.06
