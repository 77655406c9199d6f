"""The length-controlled win rate: the published numbers, and what must hold of any fit."""

import math
import warnings

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold

from evaluation.length_control import (
    GAMED_WEIGHT,
    GamedBaseline,
    Pair,
    bootstrap,
    length_controlled,
    predicted,
    predicted_one,
)
from tests.evaluation.alpaca_files import made_annotations, made_files


def pairs_of(files, rows):
    return [
        Pair(row["preference"], len(row["output_1"]) - len(row["output_2"]), entry["instruction_difficulty"])
        for row, entry in zip(rows, files.difficulty, strict=True)
    ]


@pytest.fixture(scope="module")
def files():
    return made_files()


@pytest.fixture(scope="module")
def gamed(files):
    return GamedBaseline.of_rows(files.gamed_baseline)


def test_a_win_rate_that_length_alone_made_is_taken_away(files, gamed):
    rows = made_annotations(files, theta=0.0, length=300)
    raw = 100 * (sum(row["preference"] for row in rows) / len(rows) - 1)
    fit = length_controlled(pairs_of(files, rows), gamed)
    assert raw > 65 and fit.win_rate == pytest.approx(50, abs=2)
    assert fit.coefficients == pytest.approx([-1.5, 0.8, 0.0], abs=0.1)


def test_the_win_rate_is_the_mean_of_the_fitted_preferences_at_equal_lengths(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    fit = length_controlled(pairs, gamed)
    chances = [predicted_one(fit.coefficients, pair.difficulty) for pair in pairs]
    assert fit.win_rate == pytest.approx(100 * np.mean(chances))
    assert fit.fit_spread == pytest.approx(100 * np.std(chances, ddof=1) / math.sqrt(len(chances)))
    phi, psi, theta = fit.coefficients
    assert chances[0] == pytest.approx(1 / (1 + math.exp(-psi * pairs[0].difficulty - theta)))
    assert predicted(fit.coefficients, np.array([5.0, -5.0])) == pytest.approx(
        [1 / (1 + math.exp(-5 * psi - theta)), 1 / (1 + math.exp(5 * psi - theta))]
    )


def test_the_fit_minimises_the_weighted_log_loss_with_its_penalty(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    fit = length_controlled(pairs, gamed)
    deltas = np.array([pair.delta_length for pair in pairs], dtype=float)

    def loss(w):
        own = np.column_stack(
            [np.tanh(deltas / deltas.std(ddof=1)), [p.difficulty for p in pairs], np.ones(len(pairs))]
        )
        theirs = np.column_stack([np.tanh(gamed.std_delta_length), gamed.difficulty, np.zeros(len(gamed.preference))])
        total = np.abs(w).sum() / fit.c
        for rows, targets, weight in (
            (own, [p.preference - 1 for p in pairs], 1.0),
            (theirs, gamed.preference, GAMED_WEIGHT),
        ):
            logits = rows @ w
            total += weight * np.sum(np.logaddexp(0, logits) - np.array(targets) * logits)
        return total

    least = loss(fit.coefficients)
    for step in np.concatenate([np.eye(3), -np.eye(3)]) * 0.02:
        assert loss(fit.coefficients + step) > least


def test_the_same_rows_give_the_same_fit_and_another_order_nearly_the_same(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    fit = length_controlled(pairs, gamed)
    assert length_controlled(pairs, gamed).win_rate == fit.win_rate
    assert length_controlled(pairs[::-1], gamed).win_rate == pytest.approx(fit.win_rate, abs=0.2)


def test_a_pair_without_preference_is_averaged_but_not_fitted(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    holes = [Pair(None, p.delta_length, p.difficulty) if n % 5 == 0 else p for n, p in enumerate(pairs)]
    fit = length_controlled(holes, gamed)
    values = predicted(fit.coefficients, np.array([pair.difficulty for pair in pairs]))
    assert fit.win_rate == pytest.approx(100 * values.mean())


def test_the_interval_covers_the_rate_grows_with_its_level_and_is_its_seeds(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    fit = length_controlled(pairs, gamed)
    found = {
        (level, seed): bootstrap(pairs, gamed, fit, num_resamples=120, seed=seed, level=level)
        for level, seed in ((0.95, 0), (0.5, 0), (0.95, 1))
    }
    wide, narrow = found[0.95, 0], found[0.5, 0]
    assert wide.low < narrow.low < fit.win_rate < narrow.high < wide.high
    assert wide == bootstrap(pairs, gamed, fit, num_resamples=120, seed=0, level=0.95) != found[0.95, 1]
    assert 0.1 * fit.win_rate > wide.standard_error > 0


def test_a_resample_is_fitted_as_liblinear_fits_it(files, gamed):
    pairs = pairs_of(files, made_annotations(files))
    fit = length_controlled(pairs, gamed)
    rows = np.random.default_rng(3).integers(0, len(pairs), len(pairs))
    once = bootstrap(pairs, gamed, fit, num_resamples=2, seed=3, level=0.99)
    again = length_controlled([pairs[row] for row in rows], gamed)
    assert min(abs(once.low - again.win_rate), abs(once.high - again.win_rate)) < 0.1


def test_equal_differences_of_length_are_refused(gamed):
    with pytest.raises(ValueError, match="nothing tells length from quality"):
        length_controlled([Pair(1.2, 3, 0.0), Pair(1.8, 3, 1.0)], gamed)


def test_preferences_that_do_not_exist_are_refused(gamed):
    with pytest.raises(ValueError, match="fewer than two"):
        length_controlled([Pair(None, 3, 0.0), Pair(1.8, 4, 1.0)], gamed)


@pytest.mark.parametrize(
    "change", [{"preference": "1.5"}, {"preference": "-0.1"}, {"std_delta_len": "nan"}, {"instruction_difficulty": "x"}]
)
def test_a_gamed_baseline_of_another_form_is_refused(files, change):
    with pytest.raises(ValueError, match="gamed_baseline"):
        GamedBaseline.of_rows([*files.gamed_baseline[:5], files.gamed_baseline[5] | change])
    with pytest.raises(ValueError, match="gamed_baseline"):
        GamedBaseline.of_rows([])


def cross_validated(pairs, gamed):
    """phi, psi, theta by scikit-learn's own cross-validation, set up as alpaca_eval sets it up."""
    deltas = np.array([pair.delta_length for pair in pairs], dtype=float)
    own = np.column_stack([np.tanh(deltas / deltas.std(ddof=1)), [p.difficulty for p in pairs], np.ones(len(pairs))])
    theirs = np.column_stack([np.tanh(gamed.std_delta_length), gamed.difficulty, np.zeros(len(gamed.preference))])
    targets = np.concatenate([gamed.preference, [pair.preference - 1 for pair in pairs]])
    weights = np.tile(np.concatenate([np.full(len(theirs), 0.1), np.ones(len(own))]), 2)
    true_prob = np.concatenate([targets, 1 - targets])

    def loss(label, chance, true_prob, true_weight):
        target, chance = np.where(label == 1, true_prob, 1 - true_prob), np.clip(chance, 1e-15, 1 - 1e-15)
        return -np.mean((target * np.log(chance) + (1 - target) * np.log(1 - chance)) * true_weight)

    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scorer = make_scorer(loss, response_method="predict_proba", greater_is_better=False)
        model = LogisticRegressionCV(
            cv=GroupKFold(n_splits=5), scoring=scorer.set_score_request(true_prob=True, true_weight=True),
            l1_ratios=(1,), solver="liblinear", fit_intercept=False, random_state=123,
        ).set_fit_request(sample_weight=True)  # fmt: skip
        model.fit(
            np.concatenate([theirs, own, theirs, own]), np.repeat([1, 0], len(targets)),
            sample_weight=true_prob * weights, groups=np.tile(np.arange(len(targets)), 2), true_prob=true_prob,
            true_weight=weights,
        )  # fmt: skip
    return model.coef_[0]


@pytest.mark.parametrize(("count", "seed"), [(120, 2), (120, 3), (240, 2)])
def test_the_fit_is_bit_for_bit_that_of_scikit_learns_own_cross_validation(count, seed):
    files = made_files(count)
    gamed = GamedBaseline.of_rows(files.gamed_baseline)
    pairs = pairs_of(files, made_annotations(files, seed=seed))
    assert length_controlled(pairs, gamed).coefficients.tolist() == cross_validated(pairs, gamed).tolist()
