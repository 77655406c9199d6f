"""Numbers, times and states as a person reads them: the filters of the templates."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from api.dashboard.tokens import number as signed_number
from api.dashboard.tokens import strongest
from api.figures import figure, size_text
from api.result_schemas import Unit
from api.schemas import JobNode, Progress, RunSummary
from lco.metrics import GROUPS, METRICS
from store.models.base import utc_now
from store.states import TERMINAL, RunState

_ORDER = [
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.QUARANTINED,
    RunState.CANCELLED,
    RunState.RUNNING,
    RunState.STOPPING,
    RunState.LEASED,
    RunState.PAUSED,
    RunState.RETRY_WAIT,
    RunState.QUEUED,
    RunState.BLOCKED,
]
"""Parts of a bar from left to right: what is over, what goes on, what waits."""

_METRICS = {key: metric.title for key, metric in METRICS.items()}


class _HasState(Protocol):
    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a bar: the runs in one state."""

    state: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The newest value of a metric, ready to be shown."""

    key: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """What is said about a metric beside its curve."""

    key: str
    title: str
    group: str
    text: str


def notes() -> list[Note]:
    """What is said about each metric, group by group."""
    places = {key: group for group, keys in GROUPS.items() for key in keys}
    ordered = sorted(METRICS, key=lambda key: list(GROUPS).index(places[key]) if key in places else len(GROUPS))
    return [
        Note(key, METRICS[key].title, places.get(key, ""), METRICS[key].formula.replace("`", "")) for key in ordered
    ]


def parts(runs: Iterable[_HasState]) -> list[Part]:
    """The runs of a bar by state, in the order of `_ORDER`."""
    counts = Counter(run.state for run in runs)
    found: list[Part] = []
    start = 0
    for state in _ORDER:
        if counts[state]:
            found.append(Part(state, start, counts[state]))
            start += counts[state]
    return found


def told(bar: Sequence[Part]) -> str:
    """A bar in words: `2 succeeded, 1 running`."""
    return ", ".join(f"{part.count} {part.state.replace('_', ' ')}" for part in bar) or "no run"


def num_over(runs: Iterable[_HasState]) -> int:
    """Runs in a final state."""
    return sum(run.state in TERMINAL for run in runs)


def stamp(moment: datetime) -> str:
    """A moment for programs."""
    return moment.isoformat(timespec="milliseconds")


def exactly(moment: datetime) -> str:
    """A moment in full: `2026-03-01 12:30:05 UTC`."""
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(moment: datetime) -> str:
    """How long ago a moment was; `js/words.js` keeps it true in an open page."""
    seconds = round((utc_now() - moment).total_seconds())
    size = abs(seconds)
    if size < 2:
        return "now"
    if size < 60:
        text = f"{size} s"
    elif size < 3600:
        text = f"{size // 60} min"
    elif size < 86_400:
        text = f"{size // 3600} h"
    else:
        text = "1 day" if size < 172_800 else f"{size // 86_400} days"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def span(seconds: float) -> str:
    """A length of time: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def between(start: datetime | None, end: datetime | None) -> str:
    """The time from a start to an end, or to now; nothing where there was no start."""
    return "" if start is None else span(((end or utc_now()) - start).total_seconds())


def took(runs: Sequence[RunSummary]) -> str:
    """The time from the first start of some runs to their last end, or to now; nothing before the first start."""
    starts = [run.started_at for run in runs if run.started_at is not None]
    ends = [run.finished_at for run in runs if run.finished_at is not None]
    return between(min(starts, default=None), max(ends) if len(ends) == len(runs) and ends else None)


def number(value: float | None) -> str:
    """Up to four significant digits."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{float(f'{value:.4g}'):g}"


def thousands(value: float) -> str:
    """A count: `12`, `3,450`, `1.2 million`."""
    return f"{value / 1e6:.3g} million" if value >= 1e6 else f"{value:,.0f}"


def signed(value: float | None, unit: Unit) -> str:
    """A difference with its sign: `+4.0`, `\N{MINUS SIGN}1.5`."""
    text = figure(value, unit)
    return text.replace("-", "\N{MINUS SIGN}") if value is None or value < 0 else f"+{text}"


def chance(value: float | None) -> str:
    """A p-value: `0.034`, `< 0.001`."""
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def done(progress: Progress) -> str:
    """Progress in whole percent."""
    return f"{100 * min(progress.step, progress.total) // progress.total}%" if progress.total else ""


def all_runs(jobs: Iterable[JobNode]) -> list[RunSummary]:
    """The runs of several jobs together."""
    return [run for job in jobs for run in job.runs]


def pretty(document: Any) -> str:
    """A JSON document, indented."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def singular(noun: str) -> str:
    """`jobs` -> `job`."""
    return noun.removesuffix("s")


def readings(latest: dict[str, Any]) -> list[Reading]:
    """The newest values of a run: of the well-known metrics the chief ones, first, then those of other names."""
    known = list(_METRICS)
    shown = [key for key in latest if key not in METRICS or METRICS[key].is_logged]
    keys = sorted(shown, key=lambda key: (known.index(key) if key in _METRICS else len(known), key))
    return [Reading(key, _METRICS.get(key, key), number(_value(latest[key]))) for key in keys]


def _value(entry: Any) -> float | None:
    """A newest value stands alone, or beside its step."""
    value = entry.get("value") if isinstance(entry, dict) else entry
    return float(value) if isinstance(value, int | float) else None


FILTERS = {
    "parts": parts,
    "figure": figure,
    "thousands": thousands,
    "size": size_text,
    "number": number,
    "signed": signed,
    "chance": chance,
    "num_over": num_over,
    "stamp": stamp,
    "exactly": exactly,
    "ago": ago,
    "until": between,
    "span": span,
    "took": took,
    "done": done,
    "all_runs": all_runs,
    "told": told,
    "pretty": pretty,
    "singular": singular,
    "strongest": strongest,
    "signed_number": signed_number,
}
"""Every filter that the templates may use, by name."""
