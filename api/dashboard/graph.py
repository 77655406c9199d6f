"""The graph of an experiment's jobs, laid out in columns: a job stands right of everything it waits for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from api.schemas import JobNode, RunSummary
from store.states import RunState

BOX_WIDTH = 150
BOX_HEIGHT = 52
_GAP_X = 44
_GAP_Y = 14
_PADDING = 12
_MAX_BARS = 8
_NAME_LENGTH = 17


@dataclass(frozen=True, slots=True)
class Bar:
    """The progress of one run."""

    state: str
    x: float
    width: float
    filled: float
    """Of the width."""


@dataclass(frozen=True, slots=True)
class Box:
    """A job."""

    job: JobNode
    label: str
    """Its name, cut where it is too long for the box."""
    x: int
    y: int
    bars: list[Bar]
    """By seed; the first ones where there are many."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A job waits for another."""

    path: str
    """SVG path from the right side of what is needed to the left side of what waits."""
    is_done: bool
    """What is needed has succeeded."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Everything the template draws."""

    width: int
    height: int
    boxes: list[Box]
    edges: list[Edge]
    box_width: int = BOX_WIDTH
    box_height: int = BOX_HEIGHT


def lay_out(jobs: Sequence[JobNode]) -> Graph:
    """Places jobs in columns by the longest way from a start, and within a column near what they wait for.

    Args:
        jobs: in an order in which each stands after those it needs; names in `needs` that are missing are left out.
    """
    depth: dict[str, int] = {}
    for job in jobs:
        depth[job.name] = max((depth[name] + 1 for name in job.needs if name in depth), default=0)
    columns: list[list[JobNode]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for job in jobs:
        columns[depth[job.name]].append(job)
    rows: dict[str, float] = {}
    for column in columns:
        _order(column, rows)
    tallest = max((len(column) for column in columns), default=0)
    height = 2 * _PADDING + tallest * (BOX_HEIGHT + _GAP_Y) - _GAP_Y if tallest else 0
    boxes = {}
    for position, column in enumerate(columns):
        top = (height - len(column) * (BOX_HEIGHT + _GAP_Y) + _GAP_Y) // 2
        for row, job in enumerate(column):
            x = _PADDING + position * (BOX_WIDTH + _GAP_X)
            y = top + row * (BOX_HEIGHT + _GAP_Y)
            label = job.name if len(job.name) <= _NAME_LENGTH else f"{job.name[: _NAME_LENGTH - 1]}…"
            boxes[job.name] = Box(job, label, x, y, _bars(job.runs, x))
    edges = [
        _edge(boxes[name], box)
        for box in boxes.values()
        for name in _nearest(box.job, {name: other.job for name, other in boxes.items()})
    ]
    width = 2 * _PADDING + len(columns) * (BOX_WIDTH + _GAP_X) - _GAP_X if columns else 0
    return Graph(width, height, list(boxes.values()), edges)


def _order(column: list[JobNode], rows: dict[str, float]) -> None:
    """Sorts a column by the mean row of what each job waits for, and notes the rows, counted from the middle."""

    def pull(job: JobNode) -> float:
        known = [rows[name] for name in job.needs if name in rows]
        return sum(known) / len(known) if known else 0.0

    column.sort(key=pull)
    for row, job in enumerate(column):
        rows[job.name] = row - (len(column) - 1) / 2


def _nearest(job: JobNode, by_name: dict[str, JobNode]) -> list[str]:
    """What a job waits for, without what it waits for through another of them anyway."""
    direct = [name for name in job.needs if name in by_name]
    through: set[str] = set()
    pending = [needed for name in direct for needed in by_name[name].needs]
    while pending:
        name = pending.pop()
        if name in by_name and name not in through:
            through.add(name)
            pending.extend(by_name[name].needs)
    return [name for name in direct if name not in through]


def _edge(start: Box, end: Box) -> Edge:
    x1, y1 = start.x + BOX_WIDTH, start.y + BOX_HEIGHT // 2
    x2, y2 = end.x, end.y + BOX_HEIGHT // 2
    bend = min((x2 - x1) // 2, _GAP_X)
    path = f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    return Edge(path, start.job.status == RunState.SUCCEEDED)


def _bars(runs: Sequence[RunSummary], x: int) -> list[Bar]:
    shown = sorted(runs, key=lambda run: run.seed)[:_MAX_BARS]
    left, right = x + 12, x + BOX_WIDTH - 12
    edges = [left + (right - left + 4) * i / max(len(shown), 1) for i in range(len(shown) + 1)]
    bars = []
    for run, (start, end) in zip(shown, pairwise(edges), strict=True):
        width = round(end - start - 4, 1)
        bars.append(Bar(run.state, round(start, 1), width, round(width * _share(run), 1)))
    return bars


def _share(run: RunSummary) -> float:
    if run.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.QUARANTINED):
        return 1.0
    return min(run.progress.step / run.progress.total, 1.0) if run.progress.total else 0.0
