"""Whether a checkpoint is worse than a baseline: one-sided tests by example, and the outcome of several gates.

Pure functions of numbers. An example's value is its mean over eval seeds and samples, so that an example is one
cluster, whatever is graded. Three claims can be shown of a gate: that it is broken, that it holds, that the checkpoint
is better; where none is, the outcome is `inconclusive`.

- A claim about a mean is tested by Student's t after `z^2 / 2` examples were added that contradict it as far as one
  example can (z the normal quantile of the level), as Wilson's interval does for shares: no certainty comes from a
  sample without spread, and few changed examples do not count as many.
- One evaluation of the baseline meets every checkpoint, so its luck is shared. Claims against a checkpoint (worse) and
  for it (better) therefore need a t that is sqrt(2) greater: then, for 1 - level of all baselines, at most `level` of
  the equal checkpoints are flagged, and not only on average over baselines. (With luck split into a part of variance s
  of the checkpoint and 1 - s of the baseline, z sqrt(s) + z sqrt(1 - s) is at most sqrt(2) z; it is that for s = 1/2.)
- Holm's correction over all tests of a suite bounds the chance that any gate of an equal checkpoint alarms. That all
  gates hold needs none: each is shown at the level.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from store.significance import holm, t_cdf, t_quantile

Outcome = Literal["pass", "regressed", "improved", "inconclusive"]
POWER = 0.8
"""Chance with which the minimum detectable drop is detected."""
SHARED_BASELINE = math.sqrt(2)
MIN_EXAMPLES = 5
"""Fewer say nothing, whatever they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one gate looks at."""

    min_value: float | None
    """The floor."""
    max_drop: float | None
    """The largest allowed drop against the baseline, at least 0."""
    values: Mapping[str, float]
    """The checkpoint's value of each example that has one."""
    baseline: Mapping[str, float]
    """The baseline's."""
    num_examples: int
    """Examples of the benchmark, scored or not."""
    width: float | None
    """Between the least and the greatest value that an example can have; None where nothing bounds it."""
    lowest: float = 0.0
    """The least value, where `width` is known."""
    is_baseline: bool = False
    """The checkpoint is the baseline itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A metric that is no mean of examples: a value and its standard error, for a floor alone."""

    min_value: float
    value: float | None
    stderr: float | None
    num_examples: int
    baseline_value: float | None
    baseline_stderr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigures:
    """What came of one gate."""

    outcome: Outcome
    reason: str
    """Why, for a person."""
    num_examples: int
    """Behind the value; those that both have behind the difference."""
    num_left_out: int
    """Examples without a value on either side."""
    value: float | None
    stderr: float | None
    baseline_value: float | None
    baseline_stderr: float | None
    difference: float | None = None
    """Checkpoint less baseline over the examples that both have; a drop is negative."""
    difference_stderr: float | None = None
    low: float | None = None
    """Of the difference: one-sided lower bound at the level, which shows that the gate holds."""
    high: float | None = None
    """Upper bound at the level."""
    num_wins: int = 0
    num_losses: int = 0
    num_ties: int = 0
    holds_p: float | None = None
    """Greatest one-sided p-value of the claims that make the gate hold; no correction."""
    floor_p: float | None = None
    """One-sided: the value is below the floor. Before correction."""
    drop_p: float | None = None
    """One-sided, paired: the drop is larger than allowed. Before corrections."""
    alarm_p: float | None = None
    """The least of both after the corrections for a shared baseline and for several tests; at the level it alarms."""
    better_p: float | None = None
    """One-sided, paired: the checkpoint is better. After both corrections."""
    detectable_drop: float | None = None
    """The least true drop that this gate flags with a chance of `POWER`, by the spread that was seen."""
    passing_margin: float | None = None
    """The least `max_drop` at which a checkpoint equal to the baseline passes with a chance of `POWER`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A one-sided test that a mean is above a bound."""

    p: float
    """Before any correction."""
    shared_p: float
    """With the baseline's luck shared by all checkpoints."""


def mean_is_above(values: Sequence[float], bound: float, lowest: float, level: float) -> Claim:
    """Tests that the mean of values is above a bound, after adding examples at `lowest`.

    Args:
        lowest: the value that contradicts the claim most.
        level: in (0, 0.5); says how many examples are added.
    """
    mean, stderr, degrees = _augmented(values, lowest, level)
    if stderr == 0:  # only where every value is `lowest`
        return Claim(1.0, 1.0)
    statistic = (mean - bound) / stderr
    return Claim(1 - t_cdf(statistic, degrees), 1 - t_cdf(statistic / SHARED_BASELINE, degrees))


def lower_bound(values: Sequence[float], lowest: float, level: float) -> float:
    """The one-sided lower bound of the mean at a level: what `mean_is_above` does not reject there."""
    mean, stderr, degrees = _augmented(values, lowest, level)
    return mean - t_quantile(1 - level, degrees) * stderr


def _augmented(values: Sequence[float], lowest: float, level: float) -> tuple[float, float, int]:
    """Mean, its standard error and the degrees of freedom, with the added examples."""
    added = added_examples(level)
    total = len(values) + added
    mean = (math.fsum(values) + added * lowest) / total
    squares = math.fsum((value - mean) ** 2 for value in values) + added * (lowest - mean) ** 2
    return mean, math.sqrt(squares / (total - 1) / total), len(values) - 1


def added_examples(level: float) -> float:
    """How many examples are added against a claim: z^2 / 2."""
    return NormalDist().inv_cdf(1 - level) ** 2 / 2


def decide(gates: Sequence[Measured | Whole], level: float, max_left_out: float) -> tuple[Outcome, list[GateFigures]]:
    """The outcome of a suite, and of each of its gates.

    Regressed where a gate is broken; else inconclusive where one could not be shown to hold; improved where they hold
    and one metric is better than the baseline's; else pass.

    Args:
        level: the chance of an alarm over all gates, and that of a wrong pass at each.
        max_left_out: share of a gate's examples that may have no value.
    """
    tests = [_tests(gate, level) for gate in gates]
    alarms = holm([p for test in tests for p in (test.floor_alarm, test.drop_alarm)])
    betters = holm([test.better for test in tests])
    num_alarms = sum(p is not None for p in alarms)
    figures = [
        _figures(
            gate,
            test,
            floor_alarm=alarms[2 * place],
            drop_alarm=alarms[2 * place + 1],
            better=betters[place],
            level=level,
            num_alarms=num_alarms,
            max_left_out=max_left_out,
        )
        for place, (gate, test) in enumerate(zip(gates, tests, strict=True))
    ]
    return overall([figure.outcome for figure in figures]), figures


def overall(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of several gates together."""
    for outcome in ("regressed", "inconclusive", "improved"):
        if outcome in outcomes:
            return outcome
    return "pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tests:
    """The p-values of one gate; None where a test does not apply."""

    differences: tuple[float, ...] = ()
    floor_p: float | None = None
    floor_alarm: float | None = None
    drop_p: float | None = None
    drop_alarm: float | None = None
    better: float | None = None
    holds: tuple[float, ...] = ()


def _tests(gate: Measured | Whole, level: float) -> _Tests:
    if isinstance(gate, Whole):
        if gate.value is None or not gate.stderr:
            return _Tests()
        below = NormalDist().cdf((gate.value - gate.min_value) / gate.stderr)
        return _Tests(floor_p=below, floor_alarm=below, holds=(1 - below,))
    differences = tuple(gate.values[name] - gate.baseline[name] for name in sorted(gate.values.keys() & gate.baseline))
    values = list(gate.values.values())
    if len(values) < MIN_EXAMPLES:
        return _Tests(differences=differences)
    floor_p: float | None = None
    holds: list[float] = []
    if gate.min_value is not None:
        low, high = _range(gate)
        floor_p = mean_is_above([-value for value in values], -gate.min_value, -high, level).p
        holds.append(mean_is_above(values, gate.min_value, low, level).p)
    if gate.max_drop is None or gate.is_baseline:
        return _Tests(differences=differences, floor_p=floor_p, floor_alarm=floor_p, holds=tuple(holds))
    if len(differences) < MIN_EXAMPLES:
        return _Tests(differences=differences, floor_p=floor_p, floor_alarm=floor_p)
    width = _width(gate)
    dropped = mean_is_above([-difference for difference in differences], gate.max_drop, -width, level)
    better = mean_is_above(differences, 0.0, -width, level)
    holds.append(mean_is_above(differences, -gate.max_drop, -width, level).p)
    return _Tests(
        differences=differences,
        floor_p=floor_p,
        floor_alarm=floor_p,
        drop_p=dropped.p,
        drop_alarm=dropped.shared_p,
        better=better.shared_p,
        holds=tuple(holds),
    )


def _range(gate: Measured) -> tuple[float, float]:
    """The least and the greatest value of an example: as known, else as seen on either side."""
    if gate.width is not None:
        return gate.lowest, gate.lowest + gate.width
    seen = [*gate.values.values(), *gate.baseline.values()]
    return min(seen), max(seen)


def _width(gate: Measured) -> float:
    low, high = _range(gate)
    return high - low


def _figures(
    gate: Measured | Whole,
    test: _Tests,
    *,
    floor_alarm: float | None,
    drop_alarm: float | None,
    better: float | None,
    level: float,
    num_alarms: int,
    max_left_out: float,
) -> GateFigures:
    holds = max(test.holds, default=None)
    alarm = min((p for p in (floor_alarm, drop_alarm) if p is not None), default=None)
    outcome, reason = _judged(gate, floor_alarm, drop_alarm, better, holds, level)
    if isinstance(gate, Whole):
        if gate.value is None or not gate.stderr:
            outcome, reason = "inconclusive", "the metric has no value or no standard error"
        return GateFigures(
            outcome=outcome,
            reason=reason,
            num_examples=gate.num_examples,
            num_left_out=0,
            value=gate.value,
            stderr=gate.stderr,
            baseline_value=gate.baseline_value,
            baseline_stderr=gate.baseline_stderr,
            holds_p=holds,
            floor_p=test.floor_p,
            alarm_p=alarm,
        )
    is_paired = gate.max_drop is not None and not gate.is_baseline
    counted = len(test.differences) if is_paired else len(gate.values)
    left_out = gate.num_examples - counted
    value, stderr = _mean_and_error(list(gate.values.values()))
    baseline_value, baseline_stderr = _mean_and_error(list(gate.baseline.values()))
    difference, difference_stderr = _mean_and_error(test.differences)
    if counted < MIN_EXAMPLES:
        outcome, reason = "inconclusive", f"{counted} examples have a value; {MIN_EXAMPLES} are the least"
    elif left_out > max_left_out * gate.num_examples:
        outcome = "inconclusive"
        reason = f"{left_out} of {gate.num_examples} examples have no value, more than the allowed {max_left_out:.0%}"
    low = high = detectable = margin = None
    if len(test.differences) >= MIN_EXAMPLES and gate.baseline:
        width = _width(gate)
        low = lower_bound(test.differences, -width, level)
        high = -lower_bound([-one for one in test.differences], -width, level)
        if is_paired and gate.max_drop is not None:
            detectable, margin = _sensitivity(test.differences, width, level, max(num_alarms, 1))
            detectable += gate.max_drop
    wins = sum(one > 0 for one in test.differences)
    losses = sum(one < 0 for one in test.differences)
    return GateFigures(
        outcome=outcome,
        reason=reason,
        num_examples=counted,
        num_left_out=left_out,
        value=value,
        stderr=stderr,
        baseline_value=baseline_value,
        baseline_stderr=baseline_stderr,
        difference=difference,
        difference_stderr=difference_stderr,
        low=low,
        high=high,
        num_wins=wins,
        num_losses=losses,
        num_ties=len(test.differences) - wins - losses,
        holds_p=holds,
        floor_p=test.floor_p,
        drop_p=test.drop_p,
        alarm_p=alarm,
        better_p=better,
        detectable_drop=detectable,
        passing_margin=margin,
    )


def _judged(
    gate: Measured | Whole,
    floor_alarm: float | None,
    drop_alarm: float | None,
    better: float | None,
    holds: float | None,
    level: float,
) -> tuple[Outcome, str]:
    told = (("below the floor", floor_alarm), ("dropped by more than allowed", drop_alarm))
    if broken := [what for what, alarm in told if alarm is not None and alarm <= level]:
        return "regressed", " and ".join(broken)
    if holds is not None and holds > level:
        return "inconclusive", "neither broken nor shown to hold"
    if better is not None and better <= level:
        return "improved", "better than the baseline"
    if isinstance(gate, Measured) and gate.is_baseline and gate.min_value is None:
        return "pass", "this is the baseline itself"
    return "pass", "shown to hold"


def _mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and plain standard error over examples; None where there are too few."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    squares = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1) / len(values))


def _sensitivity(differences: Sequence[float], width: float, level: float, num_tests: int) -> tuple[float, float]:
    """The drop beyond the allowed one that is flagged with the chance `POWER`, and the margin at which equals pass.

    Of the first step of Holm's procedure, which is the hardest; the spread is that of these differences, centred.
    """
    mean = math.fsum(differences) / len(differences)
    centred = [difference - mean for difference in differences]
    shift, stderr, degrees = _augmented(centred, -width, level)
    power = t_quantile(POWER, degrees)
    detectable = -shift + (SHARED_BASELINE * t_quantile(1 - level / num_tests, degrees) + power) * stderr
    return detectable, -shift + (t_quantile(1 - level, degrees) + power) * stderr
