"""The history of a gated metric as a drawing: a point for each checkpoint, with the baseline's band behind it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from api.figures import figure
from api.suite_schemas import HistoryPoint, HistorySeries

WIDTH, HEIGHT = 460, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 22
_AIR = 0.08
_NUM_TICKS = 5
"""At most."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A checkpoint's value."""

    x: float
    y: float
    low: float
    """Lower end of its 95 % interval, on the page."""
    high: float
    outcome: str
    href: str
    text: str
    """What a reader is told of it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A value on the axis."""

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """A metric from checkpoint to checkpoint, ready to be drawn."""

    title: str
    aside: str
    text: str
    """The same in words."""
    latest: str
    dots: list[Dot]
    line: str
    """Points of the line through the values."""
    bands: list[str]
    """Corners of the baseline's 95 % band, one area for each baseline and version."""
    baselines: list[str]
    """Points of the line of the baseline's value, likewise."""
    limits: list[str]
    """Points of the least value that the gate allows: baseline less the largest drop, or the floor."""
    ticks: list[Tick]
    first: str
    last: str


def timeline(series: HistorySeries) -> Timeline | None:
    """The drawing of a series; None without any value."""
    points = [point for point in series.points if point.value is not None]
    if not points:
        return None
    shown = [value for point in points for value in _values(point)]
    low, high = min(shown), max(shown)
    air = (high - low) * _AIR or abs(high) * _AIR or 1.0
    low, high = low - air, high + air

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    step = (WIDTH - _LEFT - _RIGHT) / len(points)
    centres = [round(_LEFT + step * (place + 0.5), 1) for place in range(len(points))]
    dots = []
    for x, point in zip(centres, points, strict=True):
        value, half = point.value or 0.0, 1.96 * (point.stderr or 0.0)
        told = f"{point.checkpoint_name}: {figure(value, series.unit)}, {point.outcome}"
        if point.baseline_value is not None:
            told += f"; baseline {figure(point.baseline_value, series.unit)}"
        dots.append(
            Dot(x, y(value), y(value - half), y(value + half), point.outcome, f"/verdicts/{point.verdict_id}", told)
        )
    bands, baselines, limits = [], [], []
    for first, last in _stretches(points):
        left, right = round(_LEFT + step * first, 1), round(_LEFT + step * (last + 1), 1)
        point = points[first]
        if point.baseline_low is not None and point.baseline_high is not None:
            top, bottom = y(point.baseline_high), y(point.baseline_low)
            bands.append(f"{left},{top} {right},{top} {right},{bottom} {left},{bottom}")
        if point.baseline_value is not None:
            baselines.append(f"{left},{y(point.baseline_value)} {right},{y(point.baseline_value)}")
        for limit in _limits(point):
            limits.append(f"{left},{y(limit)} {right},{y(limit)}")
    newest = points[-1]
    return Timeline(
        title=f"{series.benchmark} {series.metric}",
        aside=series.decoding,
        text=f"{series.benchmark} {series.metric} over {len(points)} checkpoints, latest {dots[-1].text}",
        latest=figure(newest.value, series.unit),
        dots=dots,
        line=" ".join(f"{dot.x},{dot.y}" for dot in dots),
        bands=bands,
        baselines=baselines,
        limits=limits,
        ticks=[Tick(y(value), figure(value, series.unit)) for value in round_values(low, high)],
        first=f"{points[0].checkpoint_created_at:%Y-%m-%d}",
        last=f"{newest.checkpoint_created_at:%Y-%m-%d}" if len(points) > 1 else "",
    )


def round_values(low: float, high: float) -> list[float]:
    """A few values between two that are multiples of 1, 2 or 5 times a power of ten."""
    least = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _values(point: HistoryPoint) -> list[float]:
    """Everything of a point that has to fit."""
    half = 1.96 * (point.stderr or 0.0)
    value = point.value or 0.0
    known = [value - half, value + half, *_limits(point)]
    return [
        *known,
        *(one for one in (point.baseline_low, point.baseline_value, point.baseline_high) if one is not None),
    ]


def _limits(point: HistoryPoint) -> list[float]:
    """The least values that the gate allows."""
    floor = [] if point.min_value is None else [point.min_value]
    if point.max_drop is None or point.baseline_value is None:
        return floor
    return [*floor, point.baseline_value - point.max_drop]


def _stretches(points: Sequence[HistoryPoint]) -> list[tuple[int, int]]:
    """First and last place of every stretch of one baseline and one version."""
    found: list[tuple[int, int]] = []
    for place, point in enumerate(points):
        before = points[place - 1] if place else None
        if before and (before.baseline_id, before.version) == (point.baseline_id, point.version):
            found[-1] = found[-1][0], place
        else:
            found.append((place, place))
    return found
