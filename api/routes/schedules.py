"""Schedules: submit, list, look, change, suspend, resume, trigger; and what they did."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import bodies, schedule_views
from api.auth import requires
from api.bodies import Body, no_body
from api.conditional import object_response
from api.dependencies import DatabaseDep, SettingsDep
from api.errors import ApiError, FieldError, body_errors, describe
from api.failures import may_fail
from api.idempotency import OnceDep, Reply
from api.ids import parse_id
from api.pagination import ListingDep, make_page, page_response
from api.schedule_schemas import ScheduleFireRead, ScheduleRead
from api.schemas import Page
from lco.config import Config
from store.actions import check_suite
from store.errors import Invalid
from store.ids import new_id
from store.repositories.schedules import Schedules
from store.schedule_specs import (
    ACTION,
    TRIGGER,
    Action,
    CronTrigger,
    DirectoryTrigger,
    ExperimentAction,
    HubTrigger,
    JobAction,
    ScheduleSpec,
    SuiteAction,
    Trigger,
    filled,
    job_of,
    sample_values,
)
from store.schedules import fire
from store.settings import Settings
from store.specs import Name

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])

AnyTrigger = CronTrigger | DirectoryTrigger | HubTrigger
AnyAction = JobAction | ExperimentAction | SuiteAction


class ScheduleChange(Config):
    """What shall be different; what is left out stays."""

    name: Name | None = None
    """null leaves it, as for every field."""
    trigger: Trigger | None = None
    """Another one begins anew: what was due before is not made up for."""
    action: Action | None = None
    concurrency: Literal["forbid", "allow"] | None = None


def check_action(trigger: AnyTrigger, action: AnyAction) -> None:
    """Refuses an action that could never be done; whether its inputs exist is looked at whenever it fires.

    Raises:
        ApiError: it is no job or experiment; names the place.
        Invalid: the action does not go with the trigger.
    """
    values = sample_values(trigger)
    if isinstance(action, SuiteAction):
        if action.checkpoints is None and isinstance(trigger, CronTrigger):
            raise Invalid("/action/checkpoints", "say which: only a watcher finds some by itself")
        return
    place = "/action/spec" if isinstance(action, JobAction) else "/action/document"
    try:
        if isinstance(action, JobAction):
            job_of(action, values)
        else:
            bodies.experiment_of(filled(action.document, values))
    except Invalid as error:
        raise Invalid(f"{place}{error.pointer}", error.message) from None
    except ApiError as error:
        raise _placed(place, error.errors) from None
    except ValidationError as error:
        raise _placed(place, body_errors(error, action.spec if isinstance(action, JobAction) else {})) from None


def _placed(place: str, errors: list[FieldError]) -> ApiError:
    moved = [error.model_copy(update={"pointer": f"{place}{error.pointer}"}) for error in errors]
    return ApiError(422, "invalid_body", describe(moved), moved)


@router.post("", operation_id="schedules.create", status_code=201, response_model=ScheduleRead)
@may_fail("invalid", "too_many")
@requires("write")
def create(spec: Annotated[Any, Depends(Body(ScheduleSpec, toml=True))], once: OnceDep) -> Response:
    """Adds a schedule. What it submits is checked now; whether its inputs exist, whenever it fires."""
    check_action(spec.trigger, spec.action)

    def work(session: Session) -> Reply:
        check_suite(session, spec.action)
        found = schedule_views.schedule(session, Schedules(session).create(spec))
        return Reply(201, found, location=f"/v1/schedules/{found.id}")

    return once.run(work)


@router.get("", operation_id="schedules.list", response_model=Page[ScheduleRead])
@requires("read")
def list_schedules(request: Request, database: DatabaseDep, listing: ListingDep) -> Response:
    """Schedules, newest first."""
    after, before = listing.cursors("sch")
    with database.read() as session:
        rows = Schedules(session).page(listing.limit, after, before, listing.order)
        data = schedule_views.schedules(session, rows.rows)
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))


@router.get("/{sch_id}", operation_id="schedules.get", response_model=ScheduleRead)
@requires("read")
def get(request: Request, database: DatabaseDep, sch_id: str) -> Response:
    """One schedule: when it fires next, and what its newest fire did."""
    with database.read() as session:
        row = Schedules(session).get(parse_id("sch", sch_id))
        return object_response(request, schedule_views.schedule(session, row))


@router.patch("/{sch_id}", operation_id="schedules.change", response_model=ScheduleRead)
@may_fail("invalid")
@requires("write")
def change(
    request: Request,
    database: DatabaseDep,
    sch_id: str,
    spec: Annotated[Any, Depends(Body(ScheduleChange))],
) -> Response:
    """Changes a schedule."""
    with database.write() as session:
        row = Schedules(session).locked(parse_id("sch", sch_id))
        trigger, action = TRIGGER.validate_python(row.trigger), ACTION.validate_python(row.action)
        check_action(spec.trigger or trigger, spec.action or action)
        check_suite(session, spec.action or action)
        changes = {name: value for name, value in spec.model_dump(mode="json").items() if value is not None}
        row = Schedules(session).change(row.id, changes)
        return object_response(request, schedule_views.schedule(session, row))


@router.delete(
    "/{sch_id}",
    operation_id="schedules.delete",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(no_body)],
)
@requires("write")
def delete(database: DatabaseDep, sch_id: str) -> Response:
    """Removes a schedule and its fires; what it submitted stays."""
    with database.write() as session:
        Schedules(session).remove(parse_id("sch", sch_id))
    return Response(status_code=204)


def _changed(once: OnceDep, sch_id: str, changes: dict[str, Any]) -> Response:
    identifier = parse_id("sch", sch_id)

    def work(session: Session) -> Reply:
        return Reply(200, schedule_views.schedule(session, Schedules(session).change(identifier, changes)))

    return once.run(work)


@router.post(
    "/{sch_id}/suspend", operation_id="schedules.suspend", response_model=ScheduleRead, dependencies=[Depends(no_body)]
)
@requires("write")
def suspend(sch_id: str, once: OnceDep) -> Response:
    """Lets a schedule rest until it is resumed. What it began goes on."""
    return _changed(once, sch_id, {"is_suspended": True})


@router.post(
    "/{sch_id}/resume", operation_id="schedules.resume", response_model=ScheduleRead, dependencies=[Depends(no_body)]
)
@requires("write")
def resume(sch_id: str, once: OnceDep) -> Response:
    """Lets a schedule go on with its next due time; those that passed meanwhile are not made up for."""
    return _changed(once, sch_id, {"is_suspended": False})


@router.post(
    "/{sch_id}/trigger",
    operation_id="schedules.trigger",
    status_code=202,
    response_model=ScheduleRead,
    dependencies=[Depends(no_body)],
)
@may_fail("invalid", "suspended")
@requires("write")
def trigger(sch_id: str, settings: SettingsDep, once: OnceDep) -> Response:
    """Fires a schedule now, also a suspended one; `last_fire` says what came of it. A watcher looks now instead."""
    identifier = parse_id("sch", sch_id)
    return once.run(lambda session: Reply(202, _fired(session, settings, identifier)))


def _fired(session: Session, settings: Settings, identifier: UUID) -> ScheduleRead:
    found = Schedules(session)
    row = found.locked(identifier)
    if row.trigger["kind"] == "cron":
        fire(session, settings, row, f"manual:{new_id()}", "manual")
    else:
        row = found.look_now(identifier)
    return schedule_views.schedule(session, row)


@router.get("/{sch_id}/fires", operation_id="schedules.fires", response_model=Page[ScheduleFireRead])
@requires("read")
def list_fires(request: Request, database: DatabaseDep, listing: ListingDep, sch_id: str) -> Response:
    """What a schedule did, newest first."""
    after, before = listing.cursors("fire")
    with database.read() as session:
        rows = Schedules(session).fires(parse_id("sch", sch_id), listing.limit, after, before, listing.order)
        data = [schedule_views.fire(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [item.id for item in data]))
