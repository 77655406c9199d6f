"""Pages of schedules: all of them with the form that adds one, and one with what it did."""

from fastapi import APIRouter, Request, Response

from api import schedule_views
from api.auth import requires
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import SLOW_REFRESH_SECONDS, page
from api.dependencies import DatabaseDep
from api.ids import parse_id
from api.pagination import cursor
from api.words_of_schedules import action_text, trigger_text
from store.models.base import utc_now
from store.repositories.schedules import Schedules

router = APIRouter(include_in_schema=False)

LIKE = {
    "submitted": "succeeded",
    "failed": "failed",
    "skipped": "skipped",
    "known": "gone",
    "fetching": "running",
    "active": "alive",
    "suspended": "paused",
    "trouble": "retry_wait",
}
"""The state whose colour and shape each outcome has."""
OBJECT_PAGES = {"job": "jobs", "exp": "experiments", "vrd": "verdicts"}
"""Where what a fire submitted has its page, by the prefix of its id."""


@router.get("/schedules")
@requires("read")
def schedules(request: Request, database: DatabaseDep, after: Cursor = None, before: Cursor = None) -> Response:
    """Schedules, newest first, and the form that adds one."""
    with database.read() as session:
        rows = Schedules(session).page(PER_PAGE, cursor("sch", after, "after"), cursor("sch", before, "before"))
        data = schedule_views.schedules(session, rows.rows)
    return page(
        request,
        "schedules.html",
        schedules=data,
        when=trigger_text,
        what=action_text,
        like=LIKE,
        now=utc_now(),
        links=pager("/schedules", {}, rows, [item.id for item in data], after, before),
        twin="/v1/schedules",
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/schedules/{sch_id}")
@requires("read")
def schedule(
    request: Request, database: DatabaseDep, sch_id: str, after: Cursor = None, before: Cursor = None
) -> Response:
    """One schedule and its fires."""
    with database.read() as session:
        identifier = parse_id("sch", sch_id)
        found = schedule_views.schedule(session, Schedules(session).get(identifier))
        ends = (cursor("fire", after, "after"), cursor("fire", before, "before"))
        rows = Schedules(session).fires(identifier, PER_PAGE, *ends)
        fires = [schedule_views.fire(row) for row in rows.rows]
    return page(
        request,
        "schedule.html",
        schedule=found,
        when=trigger_text(found.trigger),
        what=action_text(found.action),
        fires=fires,
        like=LIKE,
        now=utc_now(),
        pages=OBJECT_PAGES,
        links=pager(f"/schedules/{sch_id}", {}, rows, [item.id for item in fires], after, before),
        twin=f"/v1/schedules/{sch_id}",
        every=SLOW_REFRESH_SECONDS,
    )
