"""The drawing of a search: for each searched value, the metric of every trial against it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.search_schemas import SearchRead, TrialRead

WIDTH, HEIGHT = 240, 130
_MARGIN = 9


@dataclass(frozen=True, slots=True)
class Dot:
    """A trial in a plot."""

    x: float
    y: float
    trial: TrialRead
    hint: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The metric against one searched value."""

    name: str
    dots: list[Dot]
    low: str
    """Left end of the axis."""
    high: str
    """Right end."""
    is_log: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """All plots of a search, on one vertical axis."""

    plots: list[Plot]
    low: str
    high: str
    """Ends of the metric's axis; empty while no trial has a value."""
    width: int = WIDTH
    height: int = HEIGHT


def drawn(search: SearchRead) -> Drawing:
    """The plots of those trials that have a value."""
    trials = [trial for trial in search.trials if trial.value is not None]
    values = [trial.value for trial in trials if trial.value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    plots = [_plot(name, found, trials, low, high) for name, found in search.space.items()]
    return Drawing(plots if trials else [], _number(low) if trials else "", _number(high) if trials else "")


def _plot(name: str, found: dict[str, Any], trials: Sequence[TrialRead], low: float, high: float) -> Plot:
    is_log = "log_uniform" in found
    given = [trial.parameters[name] for trial in trials]
    choices = found.get("choice")
    if choices is not None:
        places = [float(choices.index(value)) for value in given]
        ends, labels = (0.0, float(len(choices) - 1)), (_label(choices[0]), _label(choices[-1]))
    else:
        first, last = found["log_uniform" if is_log else "int_uniform" if "int_uniform" in found else "uniform"]
        scale = math.log if is_log else float
        places = [scale(value) for value in given]
        ends, labels = (scale(first), scale(last)), (_number(first), _number(last))
    dots = []
    for trial, place, value in zip(trials, places, given, strict=True):
        assert trial.value is not None
        dots.append(
            Dot(
                x=_at(place, *ends, WIDTH),
                y=round(HEIGHT - _at(trial.value, low, high, HEIGHT), 1),
                trial=trial,
                hint=f"{trial.job}: {name} {_label(value)}, {_number(trial.value)}, {trial.state}",
            )
        )
    return Plot(name, dots, *labels, is_log)


def _at(value: float, low: float, high: float, length: int) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return round(_MARGIN + share * (length - 2 * _MARGIN), 1)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _label(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return value if isinstance(value, str) else json.dumps(value)


def label(value: Any) -> str:
    """A searched value in a table."""
    return _label(value)
