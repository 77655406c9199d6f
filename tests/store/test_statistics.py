from dataclasses import dataclass, field
from uuid import UUID

import pytest

from store.ids import new_id
from store.statistics import results_table, spread


@dataclass(frozen=True)
class Row:
    train_seed: int
    eval_seed: int | None
    value: float | None
    method: str = "lco-kld"
    benchmark: str = "sums"
    metric: str = "pass@1"
    decoding: str = "t1.0"
    num_examples: int = 10
    num_unscored: int = 0
    configuration: str = ""
    id: UUID = field(default_factory=new_id)


def test_eval_seeds_are_averaged_within_a_train_seed_before_the_spread_is_taken():
    (row,) = results_table([Row(0, 0, 0.2), Row(0, 1, 0.4), Row(1, 0, 0.5), Row(1, 1, 0.7)])
    # by hand: means per train seed 0.3 and 0.6; their mean 0.45; std (ddof=1) = 0.3 / sqrt(2)
    assert row.mean == pytest.approx(0.45)
    assert row.std == pytest.approx(0.21213203435596426)
    assert (row.n, row.missing_seeds) == (2, [])
    # by hand: within each train seed |difference| 0.2, so std 0.2 / sqrt(2)
    assert row.std_over_eval_seeds == pytest.approx(0.1414213562373095)
    assert [cell.mean for cell in row.per_seed] == pytest.approx([0.3, 0.6])
    assert (row.num_examples, row.per_seed[1].values) == (40, {0: 0.5, 1: 0.7})


def test_unequal_numbers_of_eval_seeds_do_not_weigh_train_seeds():
    (row,) = results_table([Row(0, 0, 1.0), Row(0, 1, 1.0), Row(0, 2, 1.0), Row(1, 0, 0.0)])
    assert row.mean == pytest.approx(0.5)
    assert row.std_over_eval_seeds == 0.0


def test_greedy_decoding_has_no_spread_over_eval_seeds():
    rows = [Row(0, None, 0.4, decoding="greedy"), Row(1, None, 0.6, decoding="greedy")]
    (row,) = results_table(rows)
    assert row.std_over_eval_seeds is None
    assert row.mean == pytest.approx(0.5)
    assert row.std == pytest.approx(0.1414213562373095)
    assert row.per_seed[0].values == {None: 0.4}


def test_one_train_seed_has_a_mean_and_no_std():
    (row,) = results_table([Row(0, 0, 0.2), Row(0, 1, 0.4)])
    assert (row.mean, row.std, row.n) == (pytest.approx(0.3), None, 1)


def test_a_value_that_is_missing_is_left_out_and_its_seed_named():
    (row,) = results_table([Row(0, 0, 0.5), Row(0, 1, None, num_unscored=10), Row(1, 0, None)])
    assert (row.mean, row.n, row.missing_seeds, row.num_unscored) == (0.5, 1, [1], 10)
    assert row.per_seed[1].mean is None


def test_seeds_that_were_expected_and_have_no_row_are_missing():
    (row,) = results_table([Row(0, 0, 0.5)], {"lco-kld": {0, 1, 2}})
    assert row.missing_seeds == [1, 2]


def test_without_expectations_a_methods_other_rows_tell_what_is_missing():
    _, other = results_table([Row(1, 0, 0.5), Row(0, 0, 0.5, decoding="t0.6-p0.95")])
    assert other.missing_seeds == [1]


def test_methods_benchmarks_metrics_and_decodings_are_rows_of_their_own():
    rows = [
        Row(0, 0, 0.1),
        Row(0, 0, 0.2, method="ppo"),
        Row(0, 0, 0.3, benchmark="gsm8k"),
        Row(0, 0, 0.4, metric="length"),
        Row(0, None, 0.5, decoding="greedy"),
    ]
    assert [row.mean for row in results_table(rows)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_of_two_measurements_of_the_same_the_later_counts():
    earlier, later = Row(0, 0, 0.1), Row(0, 0, 0.9)
    assert results_table([later, earlier])[0].mean == 0.9


def test_no_results_make_no_table():
    assert results_table([]) == []


def test_the_order_of_values_does_not_change_their_spread():
    values = [0.1, 0.2, 0.3, 1e16, -1e16]
    assert spread(values) == spread(values[::-1])


def test_results_of_different_configurations_are_never_merged():
    rows = results_table([Row(0, 0, 0.2, configuration="a"), Row(1, 0, 0.8, configuration="b")])
    assert [(row.configuration, row.mean, row.n) for row in rows] == [("a", 0.2, 1), ("b", 0.8, 1)]
