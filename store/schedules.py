"""Schedules fire: the row of a fire and what it submits are one transaction, and the row's primary key lets it happen
once, however many look at the clock. The clock is the database's.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as DatabaseTimeoutError
from sqlalchemy.orm import Session

from store.actions import active_objects, perform
from store.confinement import confine
from store.database import Database, database_time
from store.errors import Invalid, StoreError
from store.ids import encode_id, new_id
from store.models.schedule import Schedule, ScheduleFire
from store.notifications import publish
from store.schedule_specs import ACTION, GRACE, TRIGGER, CronTrigger, newest_due, next_after
from store.settings import Settings
from store.text import clean_text
from store.upserts import insert_into

Clock = Callable[[Session], datetime]
_MAX_PER_ROUND = 100
_MAX_MESSAGE = 1000

logger = logging.getLogger(__name__)


def fire_schedules(database: Database, settings: Settings, clock: Clock = database_time) -> int:
    """Fires every schedule that is due by the clock; how many fires it recorded.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be asked: later rounds make up for it.
    """
    with database.read() as session:
        due = select(Schedule.id, Schedule.trigger).where(
            Schedule.is_suspended.is_(False), Schedule.next_due_at <= clock(session)
        )
        found = session.execute(due.order_by(Schedule.next_due_at).limit(_MAX_PER_ROUND)).all()
    num_fired = 0
    for schedule_id in [row.id for row in found if row.trigger["kind"] == "cron"]:
        try:
            with database.write() as session:
                num_fired += _fire_cron(session, settings, schedule_id, clock) is not None
        except (DBAPIError, DatabaseTimeoutError):
            raise
        except Exception as error:  # ours: it must not come again every second, nor stop the others
            logger.exception("%s cannot fire", encode_id("sch", schedule_id))
            with database.write() as session:
                _fire_cron(session, settings, schedule_id, clock, refusal=f"an error of the platform: {error!r}")
    return num_fired


def _fire_cron(
    session: Session, settings: Settings, schedule_id: UUID, clock: Clock, refusal: str = ""
) -> ScheduleFire | None:
    """Fires a due schedule and moves it to its next time; None where another one is at it, or nothing is due."""
    schedule = lock_schedule(session, schedule_id)
    if schedule is None:
        return None
    moment = clock(session)
    if schedule.is_suspended or schedule.next_due_at is None or schedule.next_due_at > moment:
        return None
    trigger = TRIGGER.validate_python(schedule.trigger)
    assert isinstance(trigger, CronTrigger)
    first, due = schedule.next_due_at, newest_due(trigger, schedule.next_due_at, moment)
    schedule.next_due_at, schedule.last_looked_at = next_after(trigger, moment), moment
    session.flush()
    note = f"times since {first.isoformat()} were missed" if due != first else ""
    skip = "it was missed" if trigger.catch_up == "none" and moment - due > GRACE else ""
    return fire(session, settings, schedule, due.isoformat(), "due", due_at=due, note=note, skip=skip, refusal=refusal)


def lock_schedule(session: Session, schedule_id: UUID) -> Schedule | None:
    """A schedule, for this transaction alone; None where another one has it, or it is gone."""
    query = select(Schedule).where(Schedule.id == schedule_id).with_for_update(skip_locked=True)
    return session.scalar(query)


def fire(
    session: Session,
    settings: Settings,
    schedule: Schedule,
    key: str,
    cause: str,
    *,
    due_at: datetime | None = None,
    note: str = "",
    skip: str = "",
    refusal: str = "",
) -> ScheduleFire | None:
    """Does what a schedule is for, once for a key; None where it was done before. The caller holds the schedule's row.

    What the action gets wrong is recorded and told, and later fires are tried all the same.

    Args:
        cause: `due`, `found` or `manual`.
        due_at: None for now.
        note: kept with the fire.
        skip: why nothing is submitted; empty to submit.
        refusal: why it failed already; empty where it did not.
    """
    if not begin_fire(session, schedule, key, cause, "submitted", due_at=due_at, message=note):
        return None
    if not skip and not refusal and schedule.concurrency == "forbid":
        skip = _still_active(session, schedule.id)
    return finish_fire(session, settings, schedule, key, note=note, skip=skip, refusal=refusal)


def begin_fire(
    session: Session,
    schedule: Schedule,
    key: str,
    cause: str,
    outcome: str,
    *,
    due_at: datetime | None = None,
    objects: Sequence[str] = (),
    message: str = "",
) -> bool:
    """Writes a fire down, unless there is one of this key: whether it is new."""
    confine(session, schedule.project_id)
    moment = database_time(session)
    row = {
        "schedule_id": schedule.id,
        "key": key,
        "id": new_id(),
        "cause": cause,
        "due_at": due_at or moment,
        "fired_at": moment,
        "outcome": outcome,
        "objects": list(objects),
        "message": clean_text(message, _MAX_MESSAGE),
    }
    take = insert_into(session, ScheduleFire).values(**row).on_conflict_do_nothing().returning(ScheduleFire.id)
    return session.execute(take).scalar_one_or_none() is not None


def finish_fire(
    session: Session,
    settings: Settings,
    schedule: Schedule,
    key: str,
    *,
    values: dict[str, str] | None = None,
    checkpoint_id: UUID | None = None,
    note: str = "",
    skip: str = "",
    refusal: str = "",
) -> ScheduleFire:
    """Does what a schedule is for, for a fire that was begun, and writes down what came of it.

    Args:
        values: what a watcher found, for the action's placeholders.
        checkpoint_id: the found model's weights.
    """
    confine(session, schedule.project_id)
    found = session.get_one(ScheduleFire, (schedule.id, key), populate_existing=True)
    objects: list[str] = []
    if not skip and not refusal:
        try:
            with session.begin_nested():
                objects = perform(
                    session,
                    settings,
                    ACTION.validate_python(schedule.action),
                    values=values or {},
                    checkpoint_id=checkpoint_id,
                    cause=f"schedule {encode_id('sch', schedule.id)}",
                    project_id=schedule.project_id,
                )
        except (StoreError, ValueError) as error:
            refusal = told(error)
    found.outcome = "failed" if refusal else "skipped" if skip else "submitted"
    found.message = clean_text("; ".join(part for part in (refusal or skip, note) if part), _MAX_MESSAGE)
    found.objects = objects
    session.flush()
    if refusal:
        data = {"name": schedule.name, "due_at": found.due_at.isoformat(), "error": found.message}
        publish(session, "schedule.failed", encode_id("sch", schedule.id), data, schedule.project_id)
    return found


def _still_active(session: Session, schedule_id: UUID) -> str:
    """What the last fire began and still goes on, in a sentence; empty where nothing does."""
    last = session.scalar(
        select(ScheduleFire.objects)
        .where(ScheduleFire.schedule_id == schedule_id, ScheduleFire.outcome == "submitted")
        .order_by(ScheduleFire.id.desc())
        .offset(1)  # the newest is the fire at hand
        .limit(1)
    )
    active = active_objects(session, last or [])
    return f"what the last fire began still goes on: {', '.join(active[:3])}" if active else ""


def is_active(session: Session, schedule_id: UUID) -> bool:
    """Whether anything that the newest fire began still goes on."""
    last = session.scalar(
        select(ScheduleFire.objects)
        .where(ScheduleFire.schedule_id == schedule_id, ScheduleFire.outcome == "submitted")
        .order_by(ScheduleFire.id.desc())
        .limit(1)
    )
    return bool(active_objects(session, last or []))


def told(error: Exception) -> str:
    """What was wrong, for a person: the place and the reason."""
    if isinstance(error, Invalid):
        return f"{error.pointer}: {error.message}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"/{'/'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)


def claim_look(session: Session, schedule_id: UUID, seen: datetime, poll: timedelta) -> bool:
    """Takes a watcher's look that was due at `seen`; False where another one took it."""
    moment = database_time(session)
    take = (
        update(Schedule)
        .where(Schedule.id == schedule_id, Schedule.next_due_at == seen, Schedule.is_suspended.is_(False))
        .values(next_due_at=moment + poll, last_looked_at=moment)
        .returning(Schedule.id)
    )
    return session.execute(take).scalar_one_or_none() is not None


def due_looks(session: Session) -> list[Schedule]:
    """Watchers that are to look now."""
    query = select(Schedule).where(Schedule.is_suspended.is_(False), Schedule.next_due_at <= database_time(session))
    rows: list[Any] = list(session.scalars(query.order_by(Schedule.next_due_at).limit(_MAX_PER_ROUND)))
    return [row for row in rows if row.trigger["kind"] != "cron"]
