"""The matrix of an experiment: every job at its place, with its state and its result."""

from api.dashboard.matrix import grids
from api.dashboard.tables import by_method
from tests.dashboard.test_reading import node, row

DOCUMENT = {
    "axes": {"beta": [0.1, 1.0], "method": [{"name": "kld", "loss": "lco-kld"}, {"name": "mse", "loss": "lco-mse"}]},
    "exclude": [{"beta": 1.0, "method": "mse"}],
    "jobs": [
        {"name": "sft"},
        {"each": ["beta", "method"], "name": "{method.name}-{beta}"},
        {"each": ["beta"], "name": "again-{beta}"},
    ],
}
NAMES = ["sft", "kld-0.1", "mse-0.1", "kld-1.0", "again-0.1", "again-1.0"]


def test_each_job_stands_where_its_axes_cross_and_a_gap_where_one_was_left_out() -> None:
    first, second = grids(DOCUMENT, [node(name) for name in NAMES], [])
    assert (first.row_axes, first.column_axis, first.columns) == ("beta", "method", ["kld", "mse"])
    shown = {line.label: [cell and cell.job.name for cell in line.cells] for line in first.rows}
    assert shown == {"0.1": ["kld-0.1", "mse-0.1"], "1.0": ["kld-1.0", None]}
    assert (second.row_axes, second.columns, [line.label for line in second.rows]) == ("", ["0.1", "1.0"], ["all"])


def test_results_stand_in_the_cells_of_their_methods_and_say_what_they_are() -> None:
    tables = by_method([row("kld-0.1", "greedy", 0.5)])
    (first, second) = grids(DOCUMENT, [node(name) for name in NAMES], tables)
    assert first.rows[0].cells[0] is not None and first.rows[0].cells[0].result == "50.0"
    assert first.measure == "pass@1 on sums, greedy"
    assert second.measure == ""


def test_an_experiment_without_axes_or_one_that_no_longer_expands_has_no_matrix() -> None:
    assert grids({"name": "plain", "jobs": [{"name": "a"}]}, [node("a")], []) == []
    assert grids({**DOCUMENT, "axes": {"beta": []}}, [node("a")], []) == []
