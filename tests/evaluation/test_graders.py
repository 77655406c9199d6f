"""What benchmarks grade with: opened once, counted, closed; and what a scorer that fails costs."""

import threading

import pytest

from evaluation.benchmarks import Benchmark
from evaluation.config import SumsBenchmark
from evaluation.graders import Graders
from evaluation.types import Example, Item, Score


class Grader:
    """Notes when it is closed."""

    def __init__(self, name, closed):
        self.name, self.closed, self.price = name, closed, 0.25

    def close(self):
        self.closed.append(self.name)


def test_a_grader_is_opened_once_whoever_asks_and_closed_last_first(tmp_path):
    closed, made = [], []
    with Graders(tmp_path) as graders:

        def ask():
            made.append(graders.opened("slow", lambda: Grader("slow", closed)))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(grader) for grader in made}) == 1
        graders.opened("later", lambda: Grader("later", closed))
        assert closed == []
    assert closed == ["later", "slow"]


def test_what_graders_cost_is_added_up(tmp_path):
    with Graders(tmp_path) as graders:
        assert graders.price == 0
        dear = graders.opened("dear", lambda: Grader("dear", []), lambda grader: grader.price)
        graders.opened("free", lambda: Grader("free", []))
        dear.price = 1.5
        assert graders.price == 1.5


def test_the_journal_of_replies_knows_those_of_earlier_attempts(tmp_path):
    (tmp_path / "first").mkdir()
    with Graders(tmp_path / "first") as first:
        first.journal.put("k", {"reply": 1})
    (tmp_path / "second").mkdir()
    with Graders(tmp_path / "second", [tmp_path / "first"]) as second:
        assert second.journal.get("k") == {"reply": 1}


class Fragile(Benchmark[SumsBenchmark]):
    """Raises for some texts."""

    name = "fragile"
    version = 1
    metrics = ("pass@1", "truncated")

    def load(self):
        return [Example(str(number), "p", "r") for number in range(3)]

    def score(self, example, completion, graders):
        if completion == "bad":
            raise RuntimeError("the oracle fell over")
        return Score(1.0, "correct")


def test_a_scorer_that_raises_costs_its_example_the_value_and_nobody_else_anything(graders):
    benchmark = Fragile(SumsBenchmark())
    texts = ["good", "bad", "good"]
    items = [Item(position=n, example=benchmark.examples[n], completion=text) for n, text in enumerate(texts)]
    scores = dict(benchmark.score_all(items, graders))
    assert [scores[n].value for n in range(3)] == [1.0, None, 1.0]
    assert (scores[1].verdict, scores[1].reason) == ("error", "RuntimeError: the oracle fell over")


@pytest.mark.parametrize("change", [{"prompt": "q"}, {"reference": "s"}, {"id": "x"}])
def test_the_manifest_names_every_row(change):
    values = {"id": "0", "prompt": "p", "reference": "r"}

    class Changed(Fragile):
        def load(self):
            return [Example(**values | change), *super().load()[1:]]

    assert Changed(SumsBenchmark()).manifest() != Fragile(SumsBenchmark()).manifest()
    assert Fragile(SumsBenchmark()).manifest() == Fragile(SumsBenchmark()).manifest()
