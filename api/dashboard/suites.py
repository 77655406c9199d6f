"""Pages of benchmarks, suites and verdicts."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api import suite_schemas as schemas
from api import suite_views as views
from api.auth import requires
from api.dashboard.analysis import PLOT_WIDTH
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import REFRESH_SECONDS, SLOW_REFRESH_SECONDS, Twin, page
from api.dashboard.timeline import HEIGHT, WIDTH, Timeline, timeline
from api.dependencies import DatabaseDep
from api.figures import figure
from api.ids import parse_id
from api.pagination import cursor
from api.routes.benchmarks import every_benchmark
from store.repositories.suites import Suites, Verdicts

router = APIRouter(include_in_schema=False)

OUTCOMES = ("pass", "improved", "inconclusive", "regressed")
_FEW = 8
_HISTORY = 60
_MARGIN = 6.0


@dataclass(frozen=True, slots=True)
class Span:
    """Where the bounds of a difference lie on its line, and where the allowed drop ends."""

    zero: float
    low: float
    high: float
    difference: float
    limit: float | None


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate of a verdict, with the drawing of its difference."""

    told: schemas.GateVerdict
    span: Span | None
    flipped: list[tuple[str, str]]
    """Label and address of the examples that changed."""
    is_small: bool
    """A checkpoint equal to the baseline would seldom pass: more examples or seeds are needed, or a larger margin."""


@dataclass(frozen=True, slots=True)
class GateNow:
    """A gate of a suite, with what the newest verdict says of it."""

    told: schemas.GateRead
    newest: schemas.GateVerdict | None


@router.get("/benchmarks")
@requires("read")
def benchmarks(request: Request, database: DatabaseDep, archived: bool = False) -> Response:
    """Suites with their newest verdicts, and the benchmarks that they and evaluations may name."""
    with database.read() as session:
        rows = Suites(session).page(100, is_archived=archived).rows
        suites = views.suites(session, rows)
        latest = Verdicts(session).latest(row.id for row in rows)
        newest = {one.suite_id: one for one in views.verdicts(session, list(latest.values()))}
        recent = views.verdicts(session, Verdicts(session).page(_FEW).rows)
        num_archived = len(Suites(session).page(100, is_archived=True).rows)
    return page(
        request,
        "benchmarks.html",
        suites=suites,
        newest=newest,
        recent=recent,
        benchmarks=every_benchmark(),
        archived=archived,
        num_archived=num_archived,
        twins=[
            Twin("suites", f"/v1/suites?archived={str(archived).lower()}"),
            Twin("verdicts", "/v1/verdicts"),
            Twin("benchmarks", "/v1/benchmarks"),
        ],
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/benchmarks/{suite_id}")
@requires("read")
def suite(
    request: Request,
    database: DatabaseDep,
    suite_id: str,
    outcome: Annotated[str, Query(pattern=f"^({'|'.join(OUTCOMES)})?$")] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """One suite: how its metrics went, its gates, its verdicts."""
    with database.read() as session:
        row = Suites(session).get(parse_id("suite", suite_id))
        found = views.suite(session, row)
        history = views.history(session, row.id, _HISTORY)
        rows = Verdicts(session).page(
            PER_PAGE,
            cursor("vrd", after, "after"),
            cursor("vrd", before, "before"),
            suite_id=row.id,
            outcome=outcome or None,
        )
        verdicts = views.verdicts(session, rows.rows)
        decided = views.verdicts(session, Verdicts(session).page(1, suite_id=row.id, state="decided").rows)
    here = f"/benchmarks/{found.id}"
    query = {"outcome": outcome} if outcome else {}
    newest = {_place(gate): gate for one in decided for gate in one.gates}
    drawings: list[Timeline] = [one for series in history.series if (one := timeline(series)) is not None]
    return page(
        request,
        "suite.html",
        suite=found,
        gates=[GateNow(gate, newest.get(_place(gate))) for gate in found.gates],
        drawings=drawings,
        width=WIDTH,
        height=HEIGHT,
        verdicts=verdicts,
        outcomes=[
            {"label": one or "all", "href": f"{here}?{urlencode({'outcome': one})}" if one else here}
            for one in ("", *OUTCOMES)
        ],
        chosen=outcome or "all",
        links=pager(here, query, rows, [one.id for one in verdicts], after, before),
        twins=[
            Twin("suite", f"/v1/suites/{found.id}"),
            Twin("history", f"/v1/suites/{found.id}/history"),
            Twin("verdicts", f"/v1/suites/{found.id}/verdicts"),
        ],
        every=SLOW_REFRESH_SECONDS if found.archived_at is None else 0,
    )


@router.get("/verdicts/{verdict_id}")
@requires("read")
def verdict(request: Request, database: DatabaseDep, verdict_id: str) -> Response:
    """One verdict: the numbers of every gate, and the examples that changed."""
    with database.read() as session:
        found = views.verdict(session, Verdicts(session).get(parse_id("vrd", verdict_id)))
    bounds = {unit: _bound(found, unit) for unit in {gate.unit for gate in found.gates}}
    return page(
        request,
        "verdict.html",
        verdict=found,
        rows=[_row(found, gate, bounds[gate.unit]) for gate in found.gates],
        plot_width=PLOT_WIDTH,
        bound=", ".join(figure(bound, unit) for unit, bound in bounds.items()) if len(bounds) == 1 else "",
        twin=f"/v1/verdicts/{found.id}",
        every=REFRESH_SECONDS if found.state in ("pending", "running") else 0,
    )


def _place(gate: schemas.GateRead) -> tuple[str, str, str]:
    return gate.benchmark, gate.metric, gate.decoding


def _bound(found: schemas.VerdictRead, unit: str) -> float:
    """Half the width of the line on which the differences in a unit are drawn."""
    ends = [
        abs(value)
        for gate in found.gates
        if gate.unit == unit
        for value in (gate.low, gate.high, gate.max_drop)
        if value is not None
    ]
    return 1.05 * max(ends, default=1.0) or 1.0


def _row(found: schemas.VerdictRead, gate: schemas.GateVerdict, bound: float) -> GateRow:
    pairs = f"/runs/{found.baseline_run_id}/against/{found.run_id}"
    has_pairs = found.run_id is not None and found.run_id != found.baseline_run_id
    told = ((f"{gate.num_wins} won", "gained", gate.num_wins), (f"{gate.num_losses} lost", "lost", gate.num_losses))
    return GateRow(
        told=gate,
        span=_span(gate, bound),
        flipped=[(label, f"{pairs}?change={change}") for label, change, count in told if count and has_pairs],
        is_small=gate.passing_margin is not None and gate.max_drop is not None and gate.passing_margin > gate.max_drop,
    )


def _span(gate: schemas.GateVerdict, bound: float) -> Span | None:
    if gate.low is None or gate.high is None or gate.difference is None:
        return None

    def place(value: float) -> float:
        share = (max(-bound, min(bound, value)) + bound) / (2 * bound)
        return round(_MARGIN + share * (PLOT_WIDTH - 2 * _MARGIN), 1)

    return Span(
        zero=place(0.0),
        low=place(gate.low),
        high=place(gate.high),
        difference=place(gate.difference),
        limit=None if gate.max_drop is None else place(-gate.max_drop),
    )
