"""Intervals and tests over seeds, exact where that is possible. Pure functions of numbers; no numpy, no database.

Seeds are few, so nothing here needs a large sample: Student's t for intervals and the paired test, and beside it the
sign-flip permutation test, which needs no normal distribution and is enumerated whole up to `MAX_ENUMERATED` pairs.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from store.statistics import spread

MAX_ENUMERATED = 16
"""Pairs up to which all sign flips are enumerated: 65,536 of them."""
NUM_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's interval of the mean: mean -+ t std / sqrt(n); None of fewer than two values."""
    found = spread(values)
    if found.std is None or found.mean is None:
        return None
    half = t_quantile((1 + level) / 2, found.n - 1) * found.std / math.sqrt(found.n)
    return Interval(found.mean - half, found.mean + half)


def bootstrap_interval(values: Sequence[float], level: float = 0.95, seed: int = 0) -> Interval | None:
    """Percentile interval of the mean over resamples with repetition; None of fewer than two values.

    With a handful of seeds it is too narrow, as every bootstrap is: the t interval stands beside it.
    """
    return None if len(values) < 2 else _bootstrap(tuple(values), level, seed)


@lru_cache(maxsize=4096)  # pages and streams ask for the same differences again and again
def _bootstrap(values: tuple[float, ...], level: float, seed: int) -> Interval:
    generator = random.Random(seed)
    count = len(values)
    means = sorted(math.fsum(generator.choices(values, k=count)) / count for _ in range(NUM_RESAMPLES))
    cut = (1 - level) / 2
    return Interval(_quantile(means, cut), _quantile(means, 1 - cut))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def paired_t_p(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of the paired t-test that the mean difference is 0; None of fewer than two pairs.

    1 where all differences are 0, 0 where they are all one other value: no spread contradicts it.
    """
    found = spread(differences)
    if found.std is None or found.mean is None:
        return None
    if found.std == 0:
        return 1.0 if found.mean == 0 else 0.0
    statistic = abs(found.mean) / (found.std / math.sqrt(found.n))
    return 2 * (1 - t_cdf(statistic, found.n - 1))


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float | None:
    """Two-sided p-value of the paired permutation test: the share of sign flips with a mean at least as far from 0.

    Exact up to `MAX_ENUMERATED` pairs; beyond, from `NUM_RESAMPLES` random flips, the observed one counted among them.
    The least possible value is 2 / 2^n: with 4 seeds no difference is below 0.125. None without pairs.
    """
    if not differences:
        return None
    observed = abs(math.fsum(differences))
    bound = observed * (1 - 1e-12)  # equal sums may differ in the last bit
    if len(differences) <= MAX_ENUMERATED:
        flips = itertools.product((1, -1), repeat=len(differences))
        hits = sum(abs(math.fsum(map(_times, signs, differences))) >= bound for signs in flips)
        return hits / (1 << len(differences))
    generator = random.Random(seed)
    drawn = (
        math.fsum(value if generator.random() < 0.5 else -value for value in differences) for _ in range(NUM_RESAMPLES)
    )
    return (1 + sum(abs(total) >= bound for total in drawn)) / (1 + NUM_RESAMPLES)


def _times(sign: int, value: float) -> float:
    return sign * value


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (Scand. J. Statist. 6:65, 1979), in the given order; a missing one is no test."""
    known = sorted((p_value, place) for place, p_value in enumerate(p_values) if p_value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    greatest = 0.0
    for rank, (p_value, place) in enumerate(known):
        greatest = max(greatest, min(1.0, (len(known) - rank) * p_value))
        adjusted[place] = greatest
    return adjusted


def t_cdf(statistic: float, degrees: float) -> float:
    """Distribution function of Student's t with some degrees of freedom."""
    tail = 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / (degrees + statistic * statistic))
    return 1 - tail if statistic > 0 else tail


def t_quantile(share: float, degrees: float) -> float:
    """The value below which Student's t lies with a probability in (0, 1), by bisection to the last bit."""
    if share < 0.5:
        return -t_quantile(1 - share, degrees)
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < share:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        if t_cdf(middle, degrees) < share:
            low = middle
        else:
            high = middle
    return high


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300  # keeps Lentz's method from dividing by 0
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(400):
        m = step // 2
        if step == 0:
            numerator = 1.0
        elif step % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + numerator * d or tiny)
        c = 1 + numerator / c or tiny
        fraction *= c * d
        if step and abs(1 - c * d) < 1e-16:
            break
    return math.exp(log_front) * (fraction - 1) / a
