import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison import bootstrap_interval, compare, compare_scores, main
from evaluation.statistics import mcnemar_p


def directory(path, scores, configuration="c", decoding="greedy", eval_seeds=(None,)):
    """A finished evaluation: example -> value."""
    path.mkdir()
    row = {"benchmark": "sums", "decoding": decoding, "configuration": configuration, "metric": "pass@1"}
    (path / "results.json").write_text(json.dumps({"rows": [row]}))
    with (path / "completions.jsonl").open("w") as stream:
        for (example, value), eval_seed in itertools.product(scores.items(), eval_seeds):
            record = {"benchmark": "sums", "decoding": decoding, "example_id": example, "eval_seed": eval_seed}
            stream.write(json.dumps(record | {"value": value}) + "\n")
    return path


def test_wins_losses_and_ties_are_counted_by_problem(tmp_path):
    base = directory(tmp_path / "base", {"a": 0, "b": 1, "c": 1, "d": 0, "e": None})
    other = directory(tmp_path / "other", {"a": 1, "b": 0, "c": 1, "d": 1, "e": 1})
    (found,) = compare(base, other)
    assert (found.wins, found.losses, found.num_ties) == (["a", "d"], ["b"], 1)
    assert (found.base, found.other, found.difference) == (0.5, 0.75, 0.25)
    assert (found.num_examples, found.num_left_out) == (4, 1)
    assert found.mcnemar_p == 1.0


def test_samples_of_one_problem_are_one_observation(tmp_path):
    scores = {"a": 0.0, "b": 1.0, "c": 1.0}
    one = compare(directory(tmp_path / "1", scores), directory(tmp_path / "2", scores | {"a": 1.0}))
    seeds = {"decoding": "greedy", "eval_seeds": (0, 1, 2, 3)}
    many = compare(directory(tmp_path / "3", scores, **seeds), directory(tmp_path / "4", scores | {"a": 1.0}, **seeds))
    assert one == many


def test_standard_error_of_the_difference_is_that_of_paired_values():
    base = {str(i): float(i % 2) for i in range(10)}
    other = {str(i): float(i % 3 == 0) for i in range(10)}
    differences = np.array([other[key] - base[key] for key in sorted(base)])
    found = compare_scores("b", "greedy", base, other)
    assert found.stderr_over_examples == pytest.approx(differences.std(ddof=1) / np.sqrt(10))


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_the_exact_binomial_tail(num_wins, num_losses):
    p_value = mcnemar_p(num_wins, num_losses)
    if num_wins + num_losses == 0:
        assert p_value is None
        return
    total = num_wins + num_losses
    splits = [sum(flips) for flips in itertools.product((0, 1), repeat=min(total, 12))] if total <= 12 else None
    if splits is not None:
        least = min(num_wins, num_losses)
        expected = sum(wins <= least or wins >= total - least for wins in splits) / len(splits)
        assert p_value == pytest.approx(expected)
    assert mcnemar_p(num_losses, num_wins) == p_value


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        values = generator.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=100)
        low, high = bootstrap_interval(values, seed=trial)
        hits += low <= 0.1 <= high
    assert 178 <= hits <= 200  # 95 % of 200 is 190, binomial deviation 3.1


def test_equal_differences_have_no_spread():
    assert bootstrap_interval([0.25] * 8) == (0.25, 0.25)


def test_two_configurations_of_one_benchmark_are_not_compared(tmp_path):
    base = directory(tmp_path / "base", {"a": 1}, configuration="c")
    other = directory(tmp_path / "other", {"a": 1}, configuration="d")
    with pytest.raises(ValueError, match="different configurations"):
        compare(base, other)


def test_the_command_prints_json_and_names_what_is_missing(tmp_path, capsys):
    base = directory(tmp_path / "base", {"a": 0, "b": 1})
    other = directory(tmp_path / "other", {"a": 1, "b": 1})
    assert main([str(base), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["wins"] == ["a"]
    assert main([str(base), str(other)]) == 0
    assert "50.00 -> 100.00 (+50.00" in capsys.readouterr().out
    assert main([str(base), str(tmp_path / "none")]) == 2
    assert "no finished evaluation here" in capsys.readouterr().err
