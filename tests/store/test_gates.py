import math
import random
from statistics import NormalDist

import pytest

from store.gates import (
    MIN_EXAMPLES,
    SHARED_BASELINE,
    Measured,
    Whole,
    added_examples,
    decide,
    lower_bound,
    mean_is_above,
    overall,
)

LEVEL = 0.05


def example_names(count):
    return [f"p{number}" for number in range(count)]


def sampled(shares, draws, generator):
    """Each example's share of right answers in some draws."""
    return {name: sum(generator.random() < share for _ in range(draws)) / draws for name, share in shares.items()}


def measured(values, baseline, **changes):
    fields = {
        "min_value": None,
        "max_drop": 0.0,
        "num_examples": len(values.keys() | baseline.keys()),
        "width": 1.0,
    } | changes
    return Measured(values=values, baseline=baseline, **fields)


def single(gate, level=LEVEL, max_left_out=0.05):
    return decide([gate], level, max_left_out)[1][0]


def most_alarms(count, level, chance):
    """The greatest number of alarms that is reached with more than a chance: exact binomial."""
    tail = 0.0
    for number in range(count, -1, -1):
        tail += math.comb(count, number) * level**number * (1 - level) ** (count - number)
        if tail > chance:
            return number
    return 0


@pytest.fixture
def shares():
    generator = random.Random(7)
    return {name: generator.betavariate(0.6, 0.6) for name in example_names(300)}


def test_200_equal_checkpoints_against_one_baseline_raise_no_more_alarms_than_the_level(shares):
    allowed = most_alarms(200, LEVEL, 1e-3)
    assert 15 < allowed < 25
    worst = 0
    for seed in range(2):  # baselines with luck of their own
        generator = random.Random(seed)
        baseline = sampled(shares, 2, generator)
        checkpoints = [sampled(shares, 2, generator) for _ in range(200)]
        alarms = sum(single(measured(values, baseline)).outcome == "regressed" for values in checkpoints)
        worst = max(worst, alarms)
    assert worst <= allowed


def test_a_lucky_baseline_would_flag_many_equal_checkpoints_without_the_correction_for_sharing_it(shares):
    generator = random.Random(3)
    lucky = max((sampled(shares, 1, generator) for _ in range(40)), key=lambda drawn: sum(drawn.values()))
    checkpoints = [sampled(shares, 1, generator) for _ in range(200)]
    plain = corrected = 0
    for values in checkpoints:
        found = single(measured(values, lucky))
        plain += found.drop_p <= LEVEL
        corrected += found.alarm_p <= LEVEL
    assert plain > most_alarms(200, LEVEL, 1e-6)
    assert corrected < plain / 2


def test_alarms_of_a_suite_of_several_gates_stay_at_the_level():
    generator = random.Random(11)
    tasks = [{name: generator.random() for name in example_names(100)} for _ in range(6)]
    baselines = [sampled(task, 1, generator) for task in tasks]
    alarms = 0
    for _ in range(60):
        gates = [
            measured(sampled(task, 1, generator), base, min_value=0.45)
            for task, base in zip(tasks, baselines, strict=True)
        ]
        alarms += decide(gates, LEVEL, 0.05)[0] == "regressed"
    assert alarms <= most_alarms(60, LEVEL, 1e-3)


def test_graded_values_hold_the_level_too():
    generator = random.Random(5)
    means = {name: generator.gauss(2.0, 1.5) for name in example_names(120)}
    baseline = {name: mean + generator.gauss(0, 1) for name, mean in means.items()}
    alarms = 0
    for _ in range(200):
        values = {name: mean + generator.gauss(0, 1) for name, mean in means.items()}
        alarms += single(measured(values, baseline, width=None)).outcome == "regressed"
    assert alarms <= most_alarms(200, LEVEL, 1e-3)


def test_a_worsened_checkpoint_is_flagged_as_often_as_the_detectable_drop_says(shares):
    generator = random.Random(1)
    baseline = sampled(shares, 2, generator)
    detectable = single(measured(sampled(shares, 2, generator), baseline)).detectable_drop
    mean = sum(shares.values()) / len(shares)
    worse = {name: share * (1 - detectable / mean) for name, share in shares.items()}
    flagged = 0
    for _ in range(60):
        drawn = random.Random(generator.random())
        flagged += single(measured(sampled(worse, 2, drawn), sampled(shares, 2, drawn))).outcome == "regressed"
    assert 60 - flagged <= most_alarms(60, 0.2, 1e-3)
    assert flagged < 60  # the figure is no exaggeration either


def test_an_equal_checkpoint_passes_with_the_margin_that_is_told(shares):
    generator = random.Random(2)
    margin = single(measured(sampled(shares, 4, generator), sampled(shares, 4, generator))).passing_margin
    outcomes = [
        single(measured(sampled(shares, 4, generator), sampled(shares, 4, generator), max_drop=margin)).outcome
        for _ in range(60)
    ]
    assert outcomes.count("pass") + outcomes.count("improved") >= 60 - most_alarms(60, 0.2, 1e-3)


def test_a_checkpoint_that_dropped_by_exactly_the_allowed_seldom_passes():
    shares = dict.fromkeys(example_names(300), 0.6)
    worse = dict.fromkeys(shares, 0.5)
    generator = random.Random(4)
    passed = 0
    for _ in range(150):
        gate = measured(sampled(worse, 1, generator), sampled(shares, 1, generator), max_drop=0.1)
        passed += single(gate).outcome == "pass"
    assert passed <= most_alarms(150, LEVEL, 1e-3)


def test_equal_answers_on_few_examples_show_nothing_and_on_many_they_pass():
    few = dict.fromkeys(example_names(10), 1.0)
    many = dict.fromkeys(example_names(500), 1.0)
    assert single(measured(few, few, max_drop=0.02)).outcome == "inconclusive"
    assert single(measured(many, many, max_drop=0.02)).outcome == "pass"


def test_few_changed_examples_are_no_regression():
    baseline = dict.fromkeys(example_names(1000), 1.0)
    values = baseline | dict.fromkeys(example_names(3), 0.0)
    found = single(measured(values, baseline))
    assert (found.outcome, found.num_losses, found.num_wins, found.num_ties) == ("inconclusive", 3, 0, 997)


def test_a_better_checkpoint_is_improved_and_one_with_a_lower_metric_elsewhere_is_not():
    baseline = dict.fromkeys(example_names(200), 0.0)
    values = baseline | dict.fromkeys(example_names(40), 1.0)
    better = measured(values, baseline, max_drop=0.05)
    assert single(better).outcome == "improved"
    worse = measured(baseline, values, max_drop=0.05)
    outcome, figures = decide([better, worse], LEVEL, 0.05)
    assert outcome == "regressed"
    assert [figure.outcome for figure in figures] == ["improved", "regressed"]


def test_a_floor_is_clearly_missed_clearly_kept_or_neither():
    def at(share):
        values = {name: float(number < share * 200) for number, name in enumerate(example_names(200))}
        return single(measured(values, {}, min_value=0.5, max_drop=None))

    assert [at(share).outcome for share in (0.3, 0.48, 0.52, 0.7)] == ["regressed", *["inconclusive"] * 2, "pass"]
    assert at(0.3).reason == "below the floor"
    assert at(0.3).drop_p is None
    values = dict.fromkeys(example_names(200), 0.0)
    both = single(measured(values, dict.fromkeys(values, 1.0), min_value=0.5))
    assert both.reason == "below the floor and dropped by more than allowed"


def test_examples_without_a_value_on_one_side_are_left_out_and_too_many_are_no_verdict():
    baseline = dict.fromkeys(example_names(200), 1.0)
    values = dict.fromkeys(list(baseline)[:196], 0.0)
    few = single(measured(values, baseline))
    assert (few.outcome, few.num_examples, few.num_left_out) == ("regressed", 196, 4)
    many = single(measured(dict.fromkeys(list(baseline)[:150], 0.0), baseline))
    assert many.outcome == "inconclusive"
    assert many.reason == "50 of 200 examples have no value, more than the allowed 5%"


def test_a_handful_of_examples_is_no_verdict():
    values = dict.fromkeys(example_names(MIN_EXAMPLES - 1), 0.0)
    found = single(measured(values, dict.fromkeys(values, 1.0)))
    assert (found.outcome, found.reason) == ("inconclusive", "4 examples have a value; 5 are the least")


def test_the_baseline_itself_passes_and_still_has_to_reach_the_floor():
    values = dict.fromkeys(example_names(50), 0.0)
    assert single(measured(values, values, is_baseline=True)).outcome == "pass"
    assert single(measured(values, values, is_baseline=True, min_value=0.5)).outcome == "regressed"


def test_a_metric_that_is_no_mean_has_a_floor_by_its_standard_error():
    def at(value, stderr=1.0):
        return Whole(
            min_value=50.0, value=value, stderr=stderr, num_examples=805, baseline_value=None, baseline_stderr=None
        )

    outcomes = [single(at(value)).outcome for value in (45.0, 49.5, 55.0)]
    assert outcomes == ["regressed", "inconclusive", "pass"]
    assert single(at(55.0, None)).outcome == "inconclusive"
    assert single(at(None)).reason == "the metric has no value or no standard error"


def test_the_bound_of_a_sample_without_spread_is_no_closer_than_the_exact_one():
    for count in (5, 20, 500):
        bound = lower_bound([1.0] * count, 0.0, LEVEL)
        exact = LEVEL ** (1 / count)  # Clopper and Pearson's, of all out of all
        assert 0 < exact - bound < 0.5 * (1 - exact) + 0.01
    assert added_examples(LEVEL) == pytest.approx(NormalDist().inv_cdf(0.95) ** 2 / 2)


def test_the_bound_is_where_the_test_turns():
    generator = random.Random(9)
    values = [generator.random() for _ in range(40)]
    bound = lower_bound(values, 0.0, LEVEL)
    assert mean_is_above(values, bound, 0.0, LEVEL).p == pytest.approx(LEVEL)
    assert mean_is_above(values, bound, 0.0, LEVEL).shared_p > LEVEL
    assert pytest.approx(2**0.5) == SHARED_BASELINE


def test_values_that_are_all_the_least_show_nothing():
    assert mean_is_above([0.0] * 30, -0.1, 0.0, LEVEL).p == 1


def test_the_worst_gate_decides():
    assert overall(["pass", "improved"]) == "improved"
    assert overall(["pass", "inconclusive", "improved"]) == "inconclusive"
    assert overall(["inconclusive", "regressed"]) == "regressed"
    assert overall(["pass", "pass"]) == "pass"
