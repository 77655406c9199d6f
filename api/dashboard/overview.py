"""The first page: what runs, what failed, what finished, and where there is room."""

from collections import Counter
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from api import overview_views, views
from api.auth import requires
from api.dashboard.pages import SLOW_REFRESH_SECONDS, page
from api.dashboard.words import span
from api.dependencies import DatabaseDep
from api.overview_schemas import OverviewRead
from store.repositories.jobs import Experiments
from store.repositories.workers import Workers
from store.states import RunState

router = APIRouter(include_in_schema=False)

_FEW = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    label: str
    value: int
    note: str
    href: str
    of: int | None = None


@router.get("/")
@requires("read")
def overview(request: Request, database: DatabaseDep) -> Response:
    """What goes on: runs, experiments, workers."""
    with database.read() as session:
        found = overview_views.overview(session)
        experiments = views.experiments(session, Experiments(session).page(_FEW).rows)
        workers = [worker for row in Workers(session).page(100).rows if (worker := views.worker(row)).is_alive]
    return page(
        request,
        "overview.html",
        overview=found,
        tiles=_tiles(found),
        experiments=experiments,
        workers=workers,
        busy=Counter(run.worker_id for run in found.running),
        twin="/v1/overview",
        every=SLOW_REFRESH_SECONDS,
    )


def _tiles(found: OverviewRead) -> list[Tile]:
    queue = found.queue
    waits = (
        "nothing waits for a slot" if queue.oldest_seconds is None else f"the oldest for {span(queue.oldest_seconds)}"
    )
    num_runs = sum(found.states.values())
    alive = f"{found.num_workers} {'worker' if found.num_workers == 1 else 'workers'} alive"
    tiles = [
        Tile(
            "Slots in use",
            found.slots.used,
            alive if found.num_workers else "no worker is alive",
            "/workers",
            found.slots.total,
        ),
        Tile("Queued", queue.num_queued, waits, "/jobs?status=queued"),
        Tile("Blocked", queue.num_blocked, "wait for other runs", "/jobs?status=queued"),
        Tile("Succeeded", found.states.get(RunState.SUCCEEDED, 0), f"of {num_runs} runs", "/jobs?status=succeeded"),
        Tile(
            "Failed, last day", found.num_failed, "see why below" if found.num_failed else "none", "/jobs?status=failed"
        ),
    ]
    if found.gpus.total:
        tiles.insert(1, Tile("GPUs in use", found.gpus.used, "by runs of this project", "/workers", found.gpus.total))
    if queue.num_held:
        tiles.insert(-2, Tile("Held", queue.num_held, "paused or before a retry", "/jobs?status=paused"))
    return tiles
