"""Webhook endpoints, also those that are told by mail; and the log of what they were told."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, Field
from sqlalchemy.orm import Session

from api import alert_views
from api.alert_schemas import EventTypeRead, WebhookDeliveryRead, WebhookEndpointRead, WebhookEndpointSecret
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, PrincipalDep, SettingsDep
from api.errors import Problem
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.schemas import Page
from lco.config import Config
from store.egress import Channel, check_channel
from store.models.notification import Delivery, WebhookEndpoint
from store.notifications import EVENT_TYPES
from store.repositories.webhooks import Deliveries, WebhookEndpoints

router = APIRouter(prefix="/v1", tags=["webhooks"])

_FAMILIES = frozenset(f"{name.partition('.')[0]}.*" for name in EVENT_TYPES)


def _known(pattern: str) -> str:
    if pattern != "*" and pattern not in EVENT_TYPES and pattern not in _FAMILIES:
        raise ValueError("there is no such event; GET /v1/webhook_event_types lists them")
    return pattern


EventTypes = Annotated[
    list[Annotated[str, Field(max_length=64), AfterValidator(_known)]], Field(min_length=1, max_length=32)
]
Description = Annotated[str, Field(max_length=500)]


class WebhookEndpointSpec(Config):
    """Somebody who shall be told what happens."""

    channel: Channel
    """How it is told."""
    event_types: EventTypes = ["*"]
    """What it is told: `job.failed`, every event of a family by `job.*`, or all by `*`."""
    description: Description = ""
    is_enabled: bool = True


class WebhookEndpointChange(Config):
    """What shall be different; what is left out stays."""

    channel: Channel | None = None
    """null leaves it, as for every field."""
    event_types: EventTypes | None = None
    description: Description | None = None
    is_enabled: bool | None = None
    """true also forgives what failed before."""


def _with_secret(row: WebhookEndpoint, status: int) -> Reply:
    found = WebhookEndpointSecret(**alert_views.endpoint(row).model_dump(), secret="")
    location = f"/v1/webhook_endpoints/{found.id}" if status == 201 else ""
    return Reply(status, found, location=location, secret={"secret": row.secret})


def _shown(session: Session, delivery: Delivery) -> WebhookDeliveryRead:
    return alert_views.deliveries(session, [delivery])[0]


@router.get("/webhook_event_types", operation_id="webhooks.event_types", response_model=Page[EventTypeRead])
@requires("read")
def event_types(request: Request) -> Response:
    """Everything that endpoints may be told, on one page."""
    data = [EventTypeRead(id=name, description=text) for name, text in EVENT_TYPES.items()]
    return page_response(request, make_page(data, False, [item.id for item in data]))


@router.post(
    "/webhook_endpoints", operation_id="webhooks.create", status_code=201, response_model=WebhookEndpointSecret
)
@may_fail("invalid", "too_many")
@requires("admin")
def create(
    spec: Annotated[WebhookEndpointSpec, Depends(Body(WebhookEndpointSpec))],
    principal: PrincipalDep,
    settings: SettingsDep,
    once: OnceDep,
) -> Response:
    """Adds an endpoint and shows its secret, once: a replayed reply has everything but that."""
    check_channel(settings, spec.channel)

    def work(session: Session) -> Reply:
        row = WebhookEndpoints(session).create(project_id=principal.project_id, **spec.model_dump(mode="json"))
        return _with_secret(row, 201)

    return once.run(work)


@router.get("/webhook_endpoints", operation_id="webhooks.list", response_model=Page[WebhookEndpointRead])
@requires("read")
def list_endpoints(request: Request, database: DatabaseDep, listing: ListingDep) -> Response:
    """Endpoints, newest first."""
    after, before = listing.cursors("whk")
    with database.read() as session:
        rows = WebhookEndpoints(session).page(listing.limit, after, before, listing.order)
        data = [alert_views.endpoint(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/webhook_endpoints/{whk_id}", operation_id="webhooks.get", response_model=WebhookEndpointRead)
@requires("read")
def get(request: Request, database: DatabaseDep, whk_id: str) -> Response:
    """One endpoint."""
    with database.read() as session:
        return object_response(request, alert_views.endpoint(WebhookEndpoints(session).get(parse_id("whk", whk_id))))


@router.patch("/webhook_endpoints/{whk_id}", operation_id="webhooks.change", response_model=WebhookEndpointRead)
@may_fail("invalid", "other_kind")
@requires("admin")
def change(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    whk_id: str,
    spec: Annotated[WebhookEndpointChange, Depends(Body(WebhookEndpointChange))],
) -> Response:
    """Changes what is told, to whom, or whether. A webhook keeps its secret."""
    if spec.channel is not None:
        check_channel(settings, spec.channel)
    changes = {name: value for name, value in spec.model_dump(mode="json").items() if value is not None}
    with database.write() as session:
        row = WebhookEndpoints(session).change(parse_id("whk", whk_id), changes)
        return object_response(request, alert_views.endpoint(row))


@router.delete(
    "/webhook_endpoints/{whk_id}",
    operation_id="webhooks.delete",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(no_body)],
)
@requires("admin")
def delete(database: DatabaseDep, whk_id: str) -> Response:
    """Removes an endpoint and its log; what was not delivered yet is not."""
    with database.write() as session:
        WebhookEndpoints(session).remove(parse_id("whk", whk_id))
    return Response(status_code=204)


@router.post(
    "/webhook_endpoints/{whk_id}/rotate_secret",
    operation_id="webhooks.rotate_secret",
    response_model=WebhookEndpointSecret,
    dependencies=[Depends(no_body)],
    responses={409: {"model": Problem}},
)
@may_fail("no_secret")
@requires("admin")
def rotate_secret(whk_id: str, once: OnceDep) -> Response:
    """Makes a new secret and shows it, once. For a day deliveries are signed with both."""
    identifier = parse_id("whk", whk_id)
    return once.run(lambda session: _with_secret(WebhookEndpoints(session).rotate(identifier), 200))


@router.post(
    "/webhook_endpoints/{whk_id}/test",
    operation_id="webhooks.test",
    status_code=202,
    response_model=WebhookDeliveryRead,
    dependencies=[Depends(no_body)],
    responses={409: {"model": Problem}},
)
@may_fail("disabled")
@requires("write")
def test(whk_id: str, once: OnceDep) -> Response:
    """Sends a `webhook_endpoint.test` to an endpoint; `GET /v1/webhook_deliveries/{id}` then says what came of it."""
    identifier = parse_id("whk", whk_id)

    def work(session: Session) -> Reply:
        return Reply(202, _shown(session, WebhookEndpoints(session).test(identifier)))

    return once.run(work)


@router.get(
    "/webhook_endpoints/{whk_id}/deliveries",
    operation_id="webhooks.deliveries",
    response_model=Page[WebhookDeliveryRead],
)
@requires("read")
def list_deliveries(
    request: Request,
    database: DatabaseDep,
    listing: ListingDep,
    whk_id: str,
    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, Query(description="Only those of this status.")
    ] = None,
) -> Response:
    """What an endpoint was told or shall be, newest first, with every try; kept for 30 days."""
    after, before = listing.cursors("dlv")
    with database.read() as session:
        identifier = parse_id("whk", whk_id)
        rows = Deliveries(session).page(identifier, listing.limit, after, before, listing.order, status=status)
        data = alert_views.deliveries(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/webhook_deliveries/{dlv_id}", operation_id="webhooks.delivery", response_model=WebhookDeliveryRead)
@requires("read")
def get_delivery(request: Request, database: DatabaseDep, dlv_id: str) -> Response:
    """One delivery with every try."""
    with database.read() as session:
        return object_response(request, _shown(session, Deliveries(session).get(parse_id("dlv", dlv_id))))


@router.post(
    "/webhook_deliveries/{dlv_id}/redeliver",
    operation_id="webhooks.redeliver",
    status_code=202,
    response_model=WebhookDeliveryRead,
    dependencies=[Depends(no_body)],
    responses={409: {"model": Problem}},
)
@may_fail("in_flight", "disabled")
@requires("write")
def redeliver(dlv_id: str, once: OnceDep) -> Response:
    """Sends a delivery once more, under the same `webhook-id`; one that waits for its next try is tried now."""
    identifier = parse_id("dlv", dlv_id)

    def work(session: Session) -> Reply:
        return Reply(202, _shown(session, Deliveries(session).redeliver(identifier)))

    return once.run(work)
