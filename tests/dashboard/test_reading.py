"""What pages make of wire models: words, the graph, the table of results."""

import math
from datetime import timedelta

import pytest

from api.dashboard import words
from api.dashboard.graph import BOX_HEIGHT, BOX_WIDTH, lay_out
from api.dashboard.tables import by_method
from api.figures import figure
from api.result_schemas import SeedValue, TableRow, Unit
from api.schemas import JobNode, Progress, RunSummary
from store.models.base import utc_now


def run(seed: int, state: str, step: int = 0, total: int = 0) -> RunSummary:
    progress = Progress(step=step, total=total, message="", updated_at=None)
    return RunSummary(
        id=f"run_{seed}", seed=seed, state=state, desired="run", status_reason="", attempt=1, progress=progress,
        started_at=None, finished_at=None,
    )  # fmt: skip


def node(name: str, *needs: str, status: str = "queued", runs: list[RunSummary] | None = None) -> JobNode:
    return JobNode(
        id=f"job_{name}", name=name, kind="train", method=name, status=status, needs=list(needs), runs=runs or []
    )


def row(
    method: str,
    decoding: str,
    mean: float | None,
    metric: str = "pass@1",
    configuration: str = "",
    unit: Unit = "fraction",
) -> TableRow:
    seed = {"train_seed": 0, "value": mean, "num_eval_seeds": 1, "std_over_eval_seeds": None}
    each = [SeedValue(**seed, num_examples=10, num_unscored=2)]
    return TableRow(
        method=method, benchmark="sums", metric=metric, decoding=decoding, configuration=configuration, unit=unit,
        mean=mean, std=None, n=1, missing_seeds=[], std_over_eval_seeds=0.01, num_examples=10, num_unscored=2,
        per_seed=each,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "now"), (12, "12 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (90_000, "1 day ago"), (300_000, "3 days ago"),
     (-20, "in 20 s")],
)  # fmt: skip
def test_moments_are_told_relative_to_now(seconds: int, text: str) -> None:
    assert words.ago(utc_now() - timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_lengths_of_time_keep_two_units(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not finite"), (math.inf, "not finite"), (0.0, "0"), (0.1235, "0.1235"), (1e4, "10000"), (1e-5, "1.00e-5")],
)  # fmt: skip
def test_numbers_have_four_significant_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_parts_of_a_bar_cover_every_run_once() -> None:
    runs = [run(0, "running"), run(1, "succeeded"), run(2, "blocked"), run(3, "succeeded")]
    bar = words.parts(runs)
    assert [(part.state, part.start, part.count) for part in bar] == [
        ("succeeded", 0, 2), ("running", 2, 1), ("blocked", 3, 1),
    ]  # fmt: skip
    assert words.told(bar) == "2 succeeded, 1 running, 1 blocked"
    assert words.num_over(runs) == 2


def test_a_job_stands_right_of_what_it_waits_for_and_boxes_never_overlap() -> None:
    jobs = [node("a"), node("b", "a"), node("c", "a", "b"), node("d", "a"), node("e", "c", "d"), node("f", "d")]
    graph = lay_out(jobs)
    boxes = {box.job.name: box for box in graph.boxes}
    for job in jobs:
        assert all(boxes[need].x + BOX_WIDTH < boxes[job.name].x for need in job.needs)
    places = [(box.x, box.y) for box in graph.boxes]
    assert all(
        abs(x1 - x2) >= BOX_WIDTH or abs(y1 - y2) >= BOX_HEIGHT
        for i, (x1, y1) in enumerate(places)
        for x2, y2 in places[i + 1 :]
    )
    assert all(0 <= x <= graph.width - BOX_WIDTH and 0 <= y <= graph.height - BOX_HEIGHT for x, y in places)


def test_edges_that_follow_from_others_are_not_drawn() -> None:
    assert len(lay_out([node("a"), node("b", "a"), node("c", "a", "b")]).edges) == 2


def test_a_graph_without_jobs_or_with_unknown_needs_is_drawn() -> None:
    assert lay_out([]).boxes == []
    assert lay_out([node("a", "elsewhere")]).edges == []


def test_bars_of_a_job_show_each_seed() -> None:
    (box,) = lay_out([node("a", runs=[run(1, "running", 30, 60), run(0, "succeeded", 60, 60)])]).boxes
    assert [bar.filled / bar.width for bar in box.bars] == pytest.approx([1.0, 0.5], abs=0.01)


def test_methods_stand_in_the_given_order_and_greedy_comes_first() -> None:
    rows = [row("b", "t1.0", 0.5), row("a", "t1.0", 0.4), row("a", "greedy", 0.6), row("c", "t1.0", 0.3)]
    (table,) = by_method(rows, ["a", "absent", "b"])
    assert [line.method for line in table.rows] == ["a", "b", "c"]
    assert [column.decoding for column in table.columns] == ["greedy", "t1.0"]
    assert table.rows[1].cells[0] is None


def test_the_best_of_a_column_is_marked_where_there_is_a_choice() -> None:
    (table,) = by_method(
        [row("a", "t1.0", 0.4), row("b", "t1.0", 0.5), row("c", "t1.0", None), row("a", "greedy", 0.6)]
    )
    marked = {
        (line.method, column.decoding)
        for line in table.rows
        for column, cell in zip(table.columns, line.cells, strict=True)
        if cell is not None and cell.is_best
    }
    assert marked == {("b", "t1.0")}


def test_each_metric_has_a_table_of_its_own() -> None:
    tables = by_method([row("a", "t1.0", 0.4), row("a", "t1.0", 0.9, metric="format")])
    assert [table.name for table in tables] == ["pass@1", "format"]


def test_dots_share_a_scale_and_are_drawn_only_where_methods_are_compared() -> None:
    (alone,) = by_method([row("a", "t1.0", 0.4)])
    assert alone.rows[0].cells[0] is not None and alone.rows[0].cells[0].dots == []
    (table,) = by_method([row("a", "t1.0", 0.4), row("b", "t1.0", 0.5), row("c", "t1.0", 0.6)])
    places = [cell.dots[0] for line in table.rows if (cell := line.cells[0]) is not None]
    assert places == [2.5, 32.0, 61.5]


def test_what_was_measured_in_two_configurations_stands_in_two_columns() -> None:
    rows = [row("a", "t1.0", 0.4, configuration="0" * 64), row("b", "t1.0", 0.5, configuration="f" * 64)]
    (table,) = by_method([*rows, row("a", "greedy", 0.6, configuration="9" * 64)])
    assert table.benchmarks[0].labels == ["greedy", "t1.0 00000000", "t1.0 ffffffff"]
    assert [[cell is not None for cell in line.cells] for line in table.rows] == [
        [True, True, False],
        [False, False, True],
    ]
    assert not any(cell.is_best for line in table.rows for cell in line.cells if cell is not None)


def test_figures_are_told_in_their_own_unit() -> None:
    assert [figure(0.1234, "fraction"), figure(12.34, "percent"), figure(-0.1234, "number")] == [
        "12.3",
        "12.3",
        "-0.123",
    ]
    assert figure(None, "fraction") == ""
