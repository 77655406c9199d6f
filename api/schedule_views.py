"""Rows of schedules as what the wire shows."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.schedule_schemas import ScheduleFireRead, ScheduleRead
from store.ids import encode_id
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.schedules import Schedules


def schedules(session: Session, rows: Sequence[Schedule]) -> list[ScheduleRead]:
    """Schedules with their newest fires."""
    last = Schedules(session).last_fires(row.id for row in rows)
    return [
        ScheduleRead(
            id=encode_id("sch", row.id),
            name=row.name,
            trigger=row.trigger,
            action=row.action,
            concurrency=row.concurrency,
            is_suspended=row.is_suspended,
            next_due_at=row.next_due_at,
            last_fire=fire(last[row.id]) if row.id in last else None,
            last_looked_at=row.last_looked_at,
            last_error=row.last_error,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in rows
    ]


def schedule(session: Session, row: Schedule) -> ScheduleRead:
    """One schedule."""
    return schedules(session, [row])[0]


def fire(row: ScheduleFire) -> ScheduleFireRead:
    """A fire."""
    return ScheduleFireRead(
        id=encode_id("fire", row.id),
        schedule_id=encode_id("sch", row.schedule_id),
        key=row.key,
        cause=row.cause,
        due_at=row.due_at,
        fired_at=row.fired_at,
        outcome=row.outcome,
        objects=row.objects,
        message=row.message,
    )
