"""Pages of alerts: who is told what happens, and what each was told."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api import alert_views
from api.auth import requires
from api.dashboard.lists import PER_PAGE, Cursor, pager
from api.dashboard.pages import SLOW_REFRESH_SECONDS, page
from api.dependencies import DatabaseDep, SettingsDep
from api.ids import parse_id
from api.pagination import cursor
from store.models.base import utc_now
from store.notifications import EVENT_TYPES
from store.repositories.webhooks import Deliveries, WebhookEndpoints

router = APIRouter(include_in_schema=False)

LIKE = {
    "enabled": "alive",
    "failing": "retry_wait",
    "disabled": "gone",
    "delivered": "succeeded",
    "failed": "failed",
    "pending": "queued",
}
"""The state whose colour and shape each of these has."""


@router.get("/settings/webhooks")
@requires("read")
def webhooks(
    request: Request, database: DatabaseDep, settings: SettingsDep, after: Cursor = None, before: Cursor = None
) -> Response:
    """Endpoints, newest first, and the form that adds one."""
    with database.read() as session:
        rows = WebhookEndpoints(session).page(PER_PAGE, cursor("whk", after, "after"), cursor("whk", before, "before"))
        data = [alert_views.endpoint(row) for row in rows.rows]
    return page(
        request,
        "webhooks.html",
        endpoints=data,
        like=LIKE,
        now=utc_now(),
        has_mail=bool(settings.smtp_url),
        event_types=EVENT_TYPES,
        links=pager("/settings/webhooks", {}, rows, [item.id for item in data], after, before),
        twin="/v1/webhook_endpoints",
        every=SLOW_REFRESH_SECONDS,
    )


@router.get("/settings/webhooks/{whk_id}")
@requires("read")
def webhook(
    request: Request,
    database: DatabaseDep,
    whk_id: str,
    status: Annotated[Literal["", "pending", "delivered", "failed"], Query()] = "",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """One endpoint and the log of its deliveries."""
    with database.read() as session:
        identifier = parse_id("whk", whk_id)
        found = alert_views.endpoint(WebhookEndpoints(session).get(identifier))
        ends = (cursor("dlv", after, "after"), cursor("dlv", before, "before"))
        rows = Deliveries(session).page(identifier, PER_PAGE, *ends, status=status or None)
        data = alert_views.deliveries(session, rows.rows)
    here = f"/settings/webhooks/{whk_id}"
    query = {"status": status} if status else {}
    addresses = {"": here} | {choice: f"{here}?status={choice}" for choice in ("pending", "delivered", "failed")}
    return page(
        request,
        "webhook.html",
        endpoint=found,
        deliveries=data,
        like=LIKE,
        now=utc_now(),
        choices=[
            {"label": choice or "all", "href": address, "is_here": choice == status}
            for choice, address in addresses.items()
        ],
        links=pager(here, query, rows, [item.id for item in data], after, before),
        twin=f"/v1/webhook_endpoints/{whk_id}/deliveries",
        every=SLOW_REFRESH_SECONDS,
    )
