import pytest

from store.comparison import compare_methods, example_shares, over_examples
from store.ids import new_id
from store.repositories.records import Results
from store.rows import Collected, CompletionRow
from store.statistics import results_table


class Row:
    """A result."""

    def __init__(self, method, train_seed, value, metric="pass@1", eval_seed=0):
        self.id = new_id()
        self.method, self.benchmark, self.metric, self.decoding = method, "sums", metric, "t1.0"
        self.train_seed, self.eval_seed, self.value = train_seed, eval_seed, value
        self.num_examples, self.num_unscored = 10, 0
        self.configuration, self.stderr_over_examples = "c0", None


def rows(**methods):
    """Method -> values by train seed."""
    return results_table([Row(name, seed, value) for name, values in methods.items() for seed, value in values.items()])


def test_methods_are_paired_by_train_seed():
    table = rows(sft={0: 0.1, 1: 0.2, 2: 0.4}, lco={0: 0.3, 1: 0.5, 3: 0.9})
    (found,) = compare_methods(table, "sft")
    assert (found.method, found.seeds) == ("lco", [0, 1])
    assert found.differences == pytest.approx([0.2, 0.3])
    assert (found.mean, found.sign_flip_p) == (pytest.approx(0.25), 0.5)
    assert found.interval.low < 0.25 < found.interval.high
    assert found.examples is None


def test_the_p_values_of_one_request_are_corrected_together():
    table = rows(sft={0: 0.1, 1: 0.2, 2: 0.3}, lco={0: 0.30, 1: 0.41, 2: 0.52}, ppo={0: 0.2, 1: 0.2, 2: 0.5})
    lco, ppo = compare_methods(table, "sft")
    assert lco.adjusted_p == pytest.approx(2 * lco.t_p)
    assert ppo.adjusted_p == pytest.approx(max(ppo.t_p, lco.adjusted_p))


def test_a_method_without_a_shared_seed_has_no_numbers_and_no_p_value():
    (found,) = compare_methods(rows(sft={0: 0.1}, lco={1: 0.3}), "sft")
    assert (found.seeds, found.mean, found.t_p, found.adjusted_p) == ([], None, None, None)


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="no results are of the method 'nothing'"):
        compare_methods(rows(sft={0: 0.1}), "nothing")


def test_examples_are_won_lost_or_tied_by_their_share_of_correct_completions():
    found = over_examples({"a": 1.0, "b": 0.5, "c": 0.0, "x": 1.0}, {"a": 0.5, "b": 0.5, "c": 1.0, "y": 1.0})
    assert (found.num_examples, found.num_wins, found.num_losses, found.num_ties) == (3, 1, 1, 1)
    assert over_examples({"x": 1.0}, {"y": 1.0}) is None


def test_shares_are_over_seeds_and_leave_out_what_was_not_scored(rig):
    def completion(example, correct, eval_seed):
        return CompletionRow(
            benchmark="sums",
            example_id=example,
            decoding="t1.0",
            eval_seed=eval_seed,
            prompt="1+1=",
            completion="2",
            reference="2",
            extracted="2",
            verdict="correct" if correct else "wrong",
            correct=correct,
            truncated=False,
        )

    experiment = rig.submit_experiment(rig.spec("sft"), rig.spec("evaluation"))
    rig.finish(rig.take())
    collected = Collected(
        completions=[
            completion("a", True, 0),
            completion("b", False, 0),
            completion("a", False, 1),
            completion("b", None, 1),
        ]
    )
    rig.finish(rig.take(), collected=collected)
    with rig.database.read() as session:
        assert example_shares(session, experiment_id=experiment.id) == {("sft", "sums", "t1.0"): {"a": 0.5, "b": 0.0}}


def test_completions_of_two_runs_meet_by_problem_seed_and_sample(rig):
    def completion(example, correct, eval_seed=None, sample=0):
        return CompletionRow(
            benchmark="sums",
            example_id=example,
            decoding="greedy",
            eval_seed=eval_seed,
            sample_index=sample,
            prompt="1+1=",
            completion="2",
            reference="2",
            extracted="2",
            verdict="correct" if correct else "wrong",
            correct=correct,
            truncated=False,
        )

    of_runs = [
        [completion("a", True), completion("b", False), completion("c", False), completion("c", True, 1)],
        [completion("c", True), completion("b", False), completion("a", False), completion("c", True, 1, sample=1)],
    ]
    rig.submit_experiment(rig.spec("sft", seeds=[0, 1]), rig.spec("evaluation", seeds=[0, 1]))
    for _ in range(2):
        rig.finish(rig.take())
    runs = []
    for completions in of_runs:
        taken = rig.take()
        runs.append(taken.run_id)
        rig.finish(taken, collected=Collected(completions=completions))
    with rig.database.read() as session:
        results = Results(session)
        pairs = results.side_by_side(*runs).rows
        by_change = {
            change: results.side_by_side(*runs, change=change).rows for change in ("gained", "lost", "flipped")
        }
    assert [(first.example_id, first.run_id, second.run_id) for first, second in pairs] == [(x, *runs) for x in "abc"]
    assert {change: [first.example_id for first, _ in found] for change, found in by_change.items()} == {
        "gained": ["c"],
        "lost": ["a"],
        "flipped": ["a", "c"],
    }
