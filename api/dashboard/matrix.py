"""The matrix of an experiment: for each job template over axes a grid of its jobs, with states and results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.dashboard.tables import MetricTable
from api.figures import figure
from api.schemas import JobNode
from store.errors import Invalid
from store.matrix import Expanded, Point, expand, is_matrix


@dataclass(frozen=True, slots=True)
class Cell:
    """A job at its place."""

    job: JobNode
    result: str
    """Mean of its method in the first column of the first table of results; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Row:
    """A combination of all axes but the last."""

    label: str
    cells: list[Cell | None]
    """None where the combination was left out."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The jobs of one template."""

    name: str
    """As the template has it, placeholders included."""
    row_axes: str
    """Names of the axes down; empty where there is one axis alone."""
    column_axis: str
    columns: list[str]
    rows: list[Row]
    measure: str
    """What the results in the cells are; empty where there is none."""


def grids(document: Mapping[str, Any], jobs: Sequence[JobNode], tables: Sequence[MetricTable]) -> list[Grid]:
    """A grid for each template that makes several jobs; none for an experiment without axes."""
    if not is_matrix(document):
        return []
    try:
        expanded = expand(document)
    except Invalid:  # of an older version: its jobs are listed all the same
        return []
    by_name = {job.name: job for job in jobs}
    results, measure = _results(tables)
    found = [
        _grid(str(template.get("name", "")), expanded, number, by_name, results, measure)
        for number, template in enumerate(document["jobs"])
        if isinstance(template, dict) and template.get("each")
    ]
    return [grid for grid in found if grid.rows]


def _grid(
    name: str,
    expanded: Expanded,
    number: int,
    by_name: Mapping[str, JobNode],
    results: Mapping[str, str],
    measure: str,
) -> Grid:
    cells: dict[tuple[str, str], Cell] = {}
    rows: dict[str, None] = {}
    columns: dict[str, None] = {}
    axes: list[str] = []
    made = zip(expanded.document["jobs"], expanded.origins, expanded.points, strict=True)
    for document, origin, point in made:
        if origin != number or (job := by_name.get(document["name"])) is None:
            continue
        axes = list(point)
        row, column = _place(point)
        rows[row] = columns[column] = None
        cells[row, column] = Cell(job, results.get(job.method, ""))
    return Grid(
        name=name,
        row_axes=" × ".join(axes[:-1]),
        column_axis=axes[-1] if axes else "",
        columns=list(columns),
        rows=[Row(row or "all", [cells.get((row, column)) for column in columns]) for row in rows],
        measure=measure if any(cell.result for cell in cells.values()) else "",
    )


def _place(point: Point) -> tuple[str, str]:
    values = [_shown(value) for value in point.values()]
    return ", ".join(values[:-1]), values[-1]


def _shown(value: Any) -> str:
    """A value of an axis; a table by its `name`."""
    if isinstance(value, dict):
        return str(value.get("name") or json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _results(tables: Sequence[MetricTable]) -> tuple[dict[str, str], str]:
    """The mean of each method in the first column of the first table, and what that is."""
    if not tables or not tables[0].columns:
        return {}, ""
    table = tables[0]
    means = {row.method: row.cells[0] for row in table.rows}
    shown = {method: figure(cell.mean, cell.unit) for method, cell in means.items() if cell is not None}
    return shown, f"{table.name} on {table.benchmarks[0].name}, {table.columns[0].label}"
