"""AlpacaEval's length-controlled win rate: a GLM of preferences on length, difficulty and model (Dubois et al. 2024).

P(model preferred on instruction i) = logistic(phi tanh(d_i / s) + psi gamma_i + theta), with d_i = len(reference) -
len(model) in characters, s the standard deviation of d over the model's rows, and gamma_i the fixed difficulty of the
instruction. The win rate is the mean of logistic(psi gamma_i + theta): the answer to "what if the lengths were equal?"
Rows of a gamed baseline (it against itself, asked to be verbose or concise) have no theta and a tenth of the weight:
they tie phi to what length alone does, and are the actual regulariser.

The published numbers contain the tolerance, the order of coordinates and the draws of liblinear, and the C that five
folds choose; so this is scikit-learn's liblinear with alpaca_eval's settings, and not a solver of our own.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

GAMED_WEIGHT = 0.1
"""Of a gamed row: 0.2, over two gamed baselines."""
COEFFICIENTS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
"""The names under which alpaca_eval stores phi, psi and theta."""
_CS = np.logspace(-4, 4, 10)
_FOLDS = 5
_SEED = 123
_NEWTON_STEPS = 25


@dataclass(frozen=True, slots=True)
class Pair:
    """One annotated instruction."""

    preference: float | None
    """In [1, 2], 2 where the model wins; None where the judge gave none."""
    delta_length: int
    """Characters of the reference output less those of the model's."""
    difficulty: float


@dataclass(frozen=True, slots=True)
class GamedBaseline:
    """Annotations of the baseline against itself, verbose and concise."""

    preference: Vector
    """In [0, 1]."""
    std_delta_length: Vector
    difficulty: Vector

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, object]]) -> "GamedBaseline":
        """Of the rows of `df_gamed.csv`.

        Raises:
            ValueError: a column is missing, or a value is no number or out of range.
        """
        columns = []
        for name in ("preference", "std_delta_len", "instruction_difficulty"):
            try:
                columns.append(np.array([float(str(row[name])) for row in rows]))
            except (KeyError, ValueError):
                raise ValueError(f"gamed_baseline: no number in column {name!r} of some row") from None
        preference, delta, difficulty = columns
        if not rows or not all(np.isfinite(column).all() for column in columns):
            raise ValueError("gamed_baseline: no rows, or values that are not finite")
        if preference.min() < 0 or preference.max() > 1:
            raise ValueError("gamed_baseline: preferences must lie in [0, 1]")
        return cls(preference, delta, difficulty)


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A fitted model and what it says, in percent."""

    win_rate: float
    fit_spread: float
    """Standard error of the mean of the fitted probabilities, as alpaca_eval's `lc_standard_error`: how much they
    differ between instructions. It says nothing about the uncertainty of the win rate."""
    coefficients: Vector
    """phi, psi, theta."""
    c: float
    """The inverse strength of the L1 penalty that the folds chose."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval, in percent."""

    low: float
    high: float
    standard_error: float
    level: float
    num_resamples: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Design:
    """Rows to fit: features `[N, 3]`, targets in [0, 1], weights."""

    features: Matrix
    targets: Vector
    weights: Vector


def length_controlled(pairs: Sequence[Pair], gamed: GamedBaseline) -> LengthControlled:
    """Fits the model of one judge's preferences and averages it at equal lengths.

    A pair without a preference stays out of the fit and in the average and in s, as in alpaca_eval: callers drop such
    pairs where they want them out.

    Raises:
        ValueError: the lengths are all equal, or fewer than two pairs have a preference.
    """
    deltas, difficulties, targets = _columns(pairs)
    has_target = ~np.isnan(targets)
    if has_target.sum() < 2:
        raise ValueError("fewer than two annotations have a preference")
    own = _own_features(deltas, difficulties)
    design = _joined(gamed, own[has_target], targets[has_target])
    c = _chosen_c(design)
    coefficients = _fit(design, c, np.random.RandomState(_SEED))
    fitted = predicted(coefficients, difficulties)
    return LengthControlled(100 * float(fitted.mean()), 100 * _standard_error(fitted), coefficients, c)


def predicted(coefficients: Vector, difficulties: Vector) -> Vector:
    """P(model preferred) on instructions of these difficulties where the lengths are equal."""
    return _logistic(coefficients[1] * difficulties + coefficients[2])


def predicted_one(coefficients: Vector, difficulty: float) -> float:
    """P(model preferred) on one instruction at equal lengths: alpaca_eval's `glm_preference`."""
    return float(predicted(coefficients, np.array([difficulty]))[0])


def bootstrap(
    pairs: Sequence[Pair], gamed: GamedBaseline, fit: LengthControlled, *, num_resamples: int, seed: int, level: float
) -> Interval:
    """Percentile interval of the win rate over resampled instructions, the model fitted anew to each resample.

    s is computed anew too; the penalty stays at the fit's C, and the gamed rows, which are fixed data of the method,
    stay as they are. The resamples are fitted by Newton's method with the L1 term linear at the fit's signs: they
    differ from liblinear's solutions by its tolerance, three orders below the width of the interval.
    """
    known = [pair for pair in pairs if pair.preference is not None]
    deltas, difficulties, targets = _columns(known)
    random = np.random.default_rng(seed)
    slope = np.sign(fit.coefficients) / fit.c
    rates = np.empty(num_resamples)
    for number in range(num_resamples):
        rows = random.integers(0, len(known), len(known))
        own = _own_features(deltas[rows], difficulties[rows])
        coefficients = _newton(_joined(gamed, own, targets[rows]), slope, fit.coefficients)
        rates[number] = 100 * predicted(coefficients, difficulties[rows]).mean()
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), float(rates.std(ddof=1)), level, num_resamples, seed)


def _columns(pairs: Sequence[Pair]) -> tuple[Vector, Vector, Vector]:
    deltas = np.array([pair.delta_length for pair in pairs], dtype=np.float64)
    difficulties = np.array([pair.difficulty for pair in pairs], dtype=np.float64)
    targets = np.array([np.nan if p.preference is None else p.preference - 1 for p in pairs], dtype=np.float64)
    return deltas, difficulties, targets


def _own_features(deltas: Vector, difficulties: Vector) -> Matrix:
    spread = deltas.std(ddof=1)
    if not spread > 0:
        raise ValueError("all differences of length are equal, so that nothing tells length from quality")
    return np.column_stack([np.tanh(deltas / spread), difficulties, np.ones(len(deltas))])


def _joined(gamed: GamedBaseline, own: Matrix, targets: Vector) -> _Design:
    """Gamed rows first, as alpaca_eval: liblinear's result depends on the order in its last digits."""
    num_gamed = len(gamed.preference)
    theirs = np.column_stack([np.tanh(gamed.std_delta_length), gamed.difficulty, np.zeros(num_gamed)])
    weights = np.concatenate([np.full(num_gamed, GAMED_WEIGHT), np.ones(len(own))])
    return _Design(np.concatenate([theirs, own]), np.concatenate([gamed.preference, targets]), weights)


def _chosen_c(design: _Design) -> float:
    """The C of the smallest weighted log loss over five folds; the two labels of a row stay in one fold."""
    groups = np.tile(np.arange(len(design.targets)), 2)
    scores = np.zeros(len(_CS))
    for train, test in GroupKFold(n_splits=_FOLDS).split(groups, groups=groups):
        part = _rows(design, train[train < len(design.targets)])
        held = _rows(design, test[test < len(design.targets)])
        random = np.random.RandomState(_SEED)  # one stream a fold: liblinear's seed is its next draw for each C
        for position, c in enumerate(_CS):
            chance = np.clip(_logistic(held.features @ _fit(part, float(c), random)), 1e-15, 1 - 1e-15)
            gains = held.targets * np.log(chance) + (1 - held.targets) * np.log(1 - chance)
            scores[position] += np.mean(gains * held.weights)
    return float(_CS[scores.argmax()])


def _rows(design: _Design, rows: NDArray[np.intp]) -> _Design:
    return _Design(design.features[rows], design.targets[rows], design.weights[rows])


def _fit(design: _Design, c: float, random: np.random.RandomState) -> Vector:
    """liblinear's L1 solution; a fractional target is a row of label 1 and one of label 0."""
    labels = np.repeat([1, 0], len(design.targets))
    weights = np.concatenate([design.weights * design.targets, design.weights * (1 - design.targets)])
    model = LogisticRegression(solver="liblinear", l1_ratio=1.0, C=c, fit_intercept=False, random_state=random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its 100 iterations are part of the published number
        model.fit(np.concatenate([design.features, design.features]), labels, sample_weight=weights)
    coefficients: Vector = model.coef_[0]
    return coefficients


def _newton(design: _Design, slope: Vector, start: Vector) -> Vector:
    """Minimises the weighted log loss plus `slope . w` from a start nearby."""
    coefficients = start.copy()
    for _ in range(_NEWTON_STEPS):
        chance = _logistic(design.features @ coefficients)
        gradient = design.features.T @ (design.weights * (chance - design.targets)) + slope
        curvature = design.features.T * (design.weights * chance * (1 - chance)) @ design.features
        step = np.linalg.solve(curvature + 1e-9 * np.eye(3), gradient)
        coefficients = coefficients - step * min(1.0, 4.0 / max(4.0, float(np.abs(step).max())))
        if np.abs(step).max() < 1e-8:
            break
    return coefficients


def _logistic(values: Vector) -> Vector:
    chance: Vector = np.exp(-np.logaddexp(0.0, -values))
    return chance


def _standard_error(values: Vector) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
