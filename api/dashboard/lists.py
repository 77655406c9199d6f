"""Pages that list: the overview, experiments, jobs, workers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import schemas, service_schemas, views
from api.auth import requires
from api.dashboard.pages import SLOW_REFRESH_SECONDS, Twin, page
from api.dashboard.words import span
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import cursor
from store.repositories.jobs import Experiments, Jobs
from store.repositories.paging import Page
from store.repositories.runs import Runs
from store.repositories.workers import Workers
from store.states import LIVE, RunState

router = APIRouter(include_in_schema=False)

PER_PAGE = 25
_FEW = 8
STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
KINDS = ("sft", "pairs", "dpo", "train", "evaluation", "score", "import")

Cursor = Annotated[str | None, Query(max_length=64)]


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the overview."""

    label: str
    value: int
    note: str
    href: str
    of: int | None = None


@router.get("/")
@requires("read")
def overview(request: Request, database: DatabaseDep) -> Response:
    """What goes on: runs, experiments, jobs, workers."""
    with database.read() as session:
        live = live_runs(session)
        experiments = views.experiments(session, Experiments(session).page(_FEW).rows)
        jobs = views.jobs(session, Jobs(session).page(_FEW).rows)
        workers = [worker for row in Workers(session).page(100).rows if (worker := views.worker(row)).is_alive]
        counts = Runs(session).counts()
        oldest = Runs(session).oldest_queued_seconds()
        names = _names(session, jobs)
    twins = [Twin("experiments", "/v1/experiments"), Twin("jobs", "/v1/jobs"), Twin("workers", "/v1/workers")]
    return page(
        request,
        "overview.html",
        tiles=_tiles(counts, oldest, workers, len(live)),
        running=live,
        experiments=experiments,
        jobs=jobs,
        workers=workers,
        busy=Counter(run.worker_id for run in live),
        names=names,
        twins=twins,
        every=SLOW_REFRESH_SECONDS,
    )


def live_runs(session: Session) -> list[schemas.RunRead]:
    """The runs that workers hold, newest first."""
    rows = [row for state in sorted(LIVE) for row in Runs(session).page(100, state=state).rows]
    return views.runs(session, sorted(rows, key=lambda row: row.id, reverse=True))


def _tiles(
    counts: Mapping[tuple[str, str], int],
    oldest: Mapping[str, float],
    workers: list[service_schemas.WorkerRead],
    num_busy: int,
) -> list[Tile]:
    states: Counter[str] = Counter()
    for (state, _), count in counts.items():
        states[state] += count
    num_failed = states[RunState.FAILED] + states[RunState.QUARANTINED]
    num_held = states[RunState.PAUSED] + states[RunState.RETRY_WAIT]
    waits = f"the oldest for {span(max(oldest.values()))}" if oldest else "nothing waits for a slot"
    tiles = [
        Tile("Running", num_busy, "runs that a worker holds", "/jobs?status=running"),
        Tile("Queued", states[RunState.QUEUED], waits, "/jobs?status=queued"),
        Tile("Blocked", states[RunState.BLOCKED], "wait for other runs", "/jobs?status=queued"),
        Tile("Succeeded", states[RunState.SUCCEEDED], f"of {sum(states.values())} runs", "/jobs?status=succeeded"),
        Tile("Failed", num_failed, "see their error", "/jobs?status=failed"),
        Tile("Slots in use", num_busy, _workers_text(len(workers)), "/workers", sum(w.slots for w in workers)),
    ]
    if num_held:
        tiles.insert(3, Tile("Held", num_held, "paused or before a retry", "/jobs?status=paused"))
    return tiles


def _workers_text(num_alive: int) -> str:
    return "no worker is alive" if num_alive == 0 else f"{num_alive} {'worker' if num_alive == 1 else 'workers'} alive"


@router.get("/experiments")
@requires("read")
def experiments(request: Request, database: DatabaseDep, after: Cursor = None, before: Cursor = None) -> Response:
    """All experiments, newest first."""
    with database.read() as session:
        rows = Experiments(session).page(PER_PAGE, cursor("exp", after, "after"), cursor("exp", before, "before"))
        data = views.experiments(session, rows.rows)
    return page(
        request,
        "experiments.html",
        experiments=data,
        links=pager("/experiments", {}, rows, [experiment.id for experiment in data], after, before),
        twin=_twin("/v1/experiments", {}, after, before),
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/jobs")
@requires("read")
def jobs(
    request: Request,
    database: DatabaseDep,
    status: Annotated[str, Query(pattern=f"^({'|'.join(STATUSES)})?$")] = "",
    kind: Annotated[str, Query(pattern=f"^({'|'.join(KINDS)})?$")] = "",
    experiment: Annotated[str, Query(max_length=64)] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """Jobs by status, kind and experiment, newest first."""
    filters = {"status": status, "kind": kind, "experiment": experiment}
    filters = {name: value for name, value in filters.items() if value}
    with database.read() as session:
        rows = Jobs(session).page(
            PER_PAGE,
            cursor("job", after, "after"),
            cursor("job", before, "before"),
            status=status or None,
            kind=kind or None,
            experiment_id=cursor("exp", experiment or None, "experiment"),
        )
        data = views.jobs(session, rows.rows)
        names = _names(session, data)
    return page(
        request,
        "jobs.html",
        jobs=data,
        names=names,
        filters=filters,
        statuses=STATUSES,
        kinds=KINDS,
        links=pager("/jobs", filters, rows, [job.id for job in data], after, before),
        twin=_twin("/v1/jobs", filters, after, before),
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/workers")
@requires("read")
def workers(request: Request, database: DatabaseDep) -> Response:
    """Workers, with their slots."""
    with database.read() as session:
        data = [views.worker(row) for row in Workers(session).page(100).rows]
        live = live_runs(session)
    return page(
        request,
        "workers.html",
        workers=sorted(data, key=lambda worker: not worker.is_alive),
        busy=Counter(run.worker_id for run in live),
        live=live,
        twin="/v1/workers",
        every=SLOW_REFRESH_SECONDS,
    )


def pager(
    path: str, query: Mapping[str, str], rows: Page[Any], ids: list[str], after: str | None, before: str | None
) -> dict[str, str | None]:
    """Addresses of the neighbouring pages of a list, newest first; None where there is none."""
    has_newer = after is not None or (before is not None and rows.has_more)
    has_older = before is not None or rows.has_more
    return {
        "before": f"{path}?{urlencode({**query, 'before': ids[0]})}" if ids and has_newer else None,
        "after": f"{path}?{urlencode({**query, 'after': ids[-1]})}" if ids and has_older else None,
    }


def _twin(path: str, query: Mapping[str, str], after: str | None, before: str | None) -> str:
    cursors = {name: value for name, value in (("after", after), ("before", before)) if value is not None}
    return f"{path}?{urlencode({**query, 'limit': PER_PAGE, **cursors})}"


def _names(session: Session, jobs: Iterable[schemas.JobRead]) -> dict[str, str]:
    """The names of the jobs' experiments, by their ids as shown."""
    ids: dict[str, UUID] = {
        job.experiment_id: parse_id("exp", job.experiment_id) for job in jobs if job.experiment_id is not None
    }
    return {shown: Experiments(session).get(identifier).name for shown, identifier in ids.items()}
