"""Pages of one experiment's analysis: stability of its training, and its methods against a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api import schemas, views
from api.auth import requires
from api.dashboard.pages import SLOW_REFRESH_SECONDS, Twin, every, page
from api.dashboard.words import all_runs
from api.dependencies import DatabaseDep
from api.figures import figure
from api.ids import parse_id
from api.result_views import completion_pair, results_table
from api.routes.comparisons import SIGNIFICANCE, comparisons, shown
from api.service_schemas import ComparisonRead
from lco.metrics import STABILITY
from store.repositories.records import Change, Results

router = APIRouter(include_in_schema=False)

TRAINING_KINDS = ("train", "dpo", "sft")
FORMS = {"csv": "CSV", "markdown": "Markdown", "latex": "LaTeX", "html": "HTML"}
"""Forms of the table of results to download, with their names."""
PLOT_WIDTH = 220
_PLOT_MARGIN = 8
_PAIRS = 25


@dataclass(frozen=True, slots=True)
class Curve:
    """A job whose curves are drawn."""

    job: schemas.JobNode
    label: str
    """Its method, or its name where several jobs have the method."""


@dataclass(frozen=True, slots=True)
class Whisker:
    """A mean difference and its interval on the line that one benchmark's comparisons share."""

    zero: float
    mean: float
    low: float | None
    high: float | None
    dots: list[float]
    """By seed."""


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A comparison with its drawing."""

    told: ComparisonRead
    whisker: Whisker | None
    """None where no seed has both values."""
    is_significant: bool
    """Beyond the level of the table's mark, after Holm's correction."""


@dataclass(frozen=True, slots=True)
class ComparisonGroup:
    """Every method in one metric of one benchmark and decoding."""

    benchmark: str
    metric: str
    decoding: str
    rows: list[ComparisonRow]
    high: str
    """The right end of the line; the left one is the same with a minus."""


@router.get("/experiments/{experiment_id}/stability")
@requires("read")
def stability(
    request: Request,
    database: DatabaseDep,
    experiment_id: str,
    kind: Annotated[str, Query(pattern=f"^({'|'.join(TRAINING_KINDS)})?$")] = "",
) -> Response:
    """Gradient norm, entropy, action probability and KL of every method over its seeds (Figure 6), live."""
    with database.read() as session:
        found = views.experiment(session, parse_id("exp", experiment_id))
    kinds = [one for one in TRAINING_KINDS if any(job.kind == one for job in found.jobs)]
    chosen = kind or (kinds[0] if kinds else TRAINING_KINDS[0])
    jobs = [job for job in found.jobs if job.kind == chosen]
    return page(
        request,
        "stability.html",
        experiment=found,
        curves=_labelled(jobs),
        kinds=kinds,
        chosen=chosen,
        keys=STABILITY,
        seconds=SLOW_REFRESH_SECONDS,
        twin=f"/v1/experiments/{found.id}/curves?{urlencode({'kind': chosen})}",
        every=every(all_runs(found.jobs)),
    )


def _labelled(jobs: Sequence[schemas.JobNode]) -> list[Curve]:
    methods = [job.method for job in jobs]
    return [Curve(job, job.method if methods.count(job.method) == 1 else job.name) for job in jobs]


@router.get("/experiments/{experiment_id}/compare")
@requires("read")
def compare(
    request: Request,
    database: DatabaseDep,
    experiment_id: str,
    baseline: Annotated[str, Query(max_length=64)] = "",
    metric: Annotated[str, Query(max_length=128)] = "",
) -> Response:
    """Every method of an experiment less one of them, with intervals and tests."""
    with database.read() as session:
        identifier = parse_id("exp", experiment_id)
        found = views.experiment(session, identifier)
        rows = [row for row in results_table(session, experiment_id=identifier).rows if row.per_seed]
        metrics = list(dict.fromkeys(row.metric for row in rows))
        wanted = metric or ("pass@1" if "pass@1" in metrics else metrics[0] if metrics else "")
        present = {row.method for row in rows if row.metric == wanted}
        methods = [method for method in dict.fromkeys(job.method for job in found.jobs) if method in present]
        base = baseline or (methods[0] if methods else "")
        told = [shown(one) for one in comparisons(session, found.id, base, metric=wanted)] if base in present else []
    query = {"experiment": found.id, "baseline": base, "metric": wanted}
    return page(
        request,
        "compare.html",
        experiment=found,
        methods=methods,
        metrics=metrics,
        chosen=query,
        groups=_groups(told, methods),
        num_comparisons=len(told),
        downloads=[
            {"label": label, "href": f"/v1/results/table?{urlencode({**query, 'format': form})}"}
            for form, label in FORMS.items()
        ],
        twins=[
            Twin("comparisons", f"/v1/comparisons?{urlencode(query)}"),
            Twin("table", f"/v1/results/table?{urlencode({'experiment': found.id, 'metric': wanted})}"),
        ]
        if told
        else [Twin("experiment", f"/v1/experiments/{found.id}")],
        every=every(all_runs(found.jobs)),
    )


@router.get("/runs/{run_id}/against/{other_id}")
@requires("read")
def side_by_side(
    request: Request,
    database: DatabaseDep,
    run_id: str,
    other_id: str,
    change: Annotated[str, Query(pattern="^(gained|lost|flipped)?$")] = "",
    after: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None,
) -> Response:
    """Completions of two evaluation runs, problem by problem."""
    with database.read() as session:
        identifiers = [parse_id("run", one) for one in (run_id, other_id)]
        first, second = (views.run(session, one) for one in identifiers)
        wanted: Change | None = change or None  # type: ignore[assignment]  # the pattern says so
        rows = Results(session).side_by_side(identifiers[0], identifiers[1], _PAIRS, after, change=wanted)
        pairs = [completion_pair(*pair) for pair in rows.rows]
    here = f"/runs/{first.id}/against/{second.id}"

    def address(change: str, after: int | None = None) -> str:
        query = {name: value for name, value in (("change", change), ("after", after)) if value not in ("", None)}
        return f"{here}?{urlencode(query)}" if query else here

    twin = f"/v1/runs/{first.id}/completions/against/{second.id}"
    return page(
        request,
        "pairs.html",
        first=first,
        second=second,
        pairs=pairs,
        changes=[
            {"label": one or "all", "href": address(one), "is_here": one == change}
            for one in ("", "flipped", "gained", "lost")
        ],
        swap=f"/runs/{second.id}/against/{first.id}",
        links={
            "first": address(change) if after is not None else None,
            "after": address(change, pairs[-1].position) if rows.has_more else None,
        },
        twin=f"{twin}?{urlencode({'change': change})}" if change else twin,
    )


def _groups(told: Sequence[ComparisonRead], methods: Sequence[str]) -> list[ComparisonGroup]:
    """One group for each benchmark, decoding and configuration, its rows in the order of the methods."""
    places = dict.fromkeys((one.benchmark, one.metric, one.decoding, one.configuration) for one in told)
    found = []
    for place in places:
        benchmark, metric, decoding, configuration = place
        rows = [one for one in told if (one.benchmark, one.metric, one.decoding, one.configuration) == place]
        rows.sort(key=lambda one: methods.index(one.method))
        is_alone = sum(other[:3] == place[:3] for other in places) == 1
        label = decoding if is_alone else f"{decoding} {configuration[:8] or '(unnamed)'}"
        found.append(_group(benchmark, metric, label, rows))
    return found


def _group(benchmark: str, metric: str, decoding: str, rows: Sequence[ComparisonRead]) -> ComparisonGroup:
    bound = _bound(rows)
    unit = rows[0].unit
    return ComparisonGroup(
        benchmark=benchmark,
        metric=metric,
        decoding=decoding,
        rows=[
            ComparisonRow(
                told=one,
                whisker=_whisker(one, bound),
                is_significant=one.adjusted_p is not None and one.adjusted_p < SIGNIFICANCE,
            )
            for one in rows
        ],
        high=figure(bound, unit),
    )


def _bound(rows: Sequence[ComparisonRead]) -> float:
    """Half the width of the line: every seed fits; of intervals as much as does not make the seeds small."""
    seeds = max((abs(value) for one in rows for value in one.differences), default=0.0)
    intervals = max((max(abs(one.interval.low), abs(one.interval.high)) for one in rows if one.interval), default=0.0)
    return 1.05 * (max(seeds, min(intervals, 3 * seeds)) or 1.0)


def _whisker(one: ComparisonRead, bound: float) -> Whisker | None:
    if one.mean is None:
        return None

    def place(value: float) -> float:
        share = (max(-bound, min(bound, value)) + bound) / (2 * bound)
        return round(_PLOT_MARGIN + share * (PLOT_WIDTH - 2 * _PLOT_MARGIN), 1)

    return Whisker(
        zero=place(0.0),
        mean=place(one.mean),
        low=place(one.interval.low) if one.interval else None,
        high=place(one.interval.high) if one.interval else None,
        dots=[place(value) for value in one.differences],
    )
