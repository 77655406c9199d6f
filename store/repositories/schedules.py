"""Schedules and their fires."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.database import database_time
from store.errors import Conflict, NotFound
from store.ids import encode_id
from store.models.schedule import Schedule, ScheduleFire
from store.repositories.paging import Order, Page, keyset_page
from store.schedule_specs import TRIGGER, ScheduleSpec, first_look

_MAX_SCHEDULES = 100


class Schedules:
    """Queries of schedules."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, spec: ScheduleSpec) -> Schedule:
        """Adds a schedule to the session's project.

        Raises:
            Conflict: the project has too many.
        """
        project_id = project_of(self._session)
        count = select(func.count()).select_from(Schedule).where(Schedule.project_id == project_id)
        if self._session.execute(count).scalar_one() >= _MAX_SCHEDULES:
            raise Conflict("too_many", f"a project has at most {_MAX_SCHEDULES} schedules")
        moment = database_time(self._session)
        schedule = Schedule(
            project_id=project_id,
            **spec.model_dump(mode="json"),
            next_due_at=None if spec.is_suspended else first_look(spec.trigger, moment),
            created_at=moment,
            updated_at=moment,
        )
        self._session.add(schedule)
        self._session.flush()
        return schedule

    def get(self, schedule_id: UUID) -> Schedule:
        """One schedule.

        Raises:
            NotFound: there is none.
        """
        schedule = self._session.scalar(select(Schedule).where(Schedule.id == schedule_id))
        if schedule is None:
            raise NotFound("schedule", encode_id("sch", schedule_id))
        return schedule

    def locked(self, schedule_id: UUID) -> Schedule:
        """One schedule, for this transaction alone.

        Raises:
            NotFound: there is none.
        """
        schedule = self._session.scalar(select(Schedule).where(Schedule.id == schedule_id).with_for_update())
        if schedule is None:
            raise NotFound("schedule", encode_id("sch", schedule_id))
        return schedule

    def page(
        self, limit: int = 20, after: UUID | None = None, before: UUID | None = None, order: Order = "desc"
    ) -> Page[Schedule]:
        """Schedules by their creation."""
        return keyset_page(
            self._session, select(Schedule), Schedule.id, limit=limit, after=after, before=before, order=order
        )

    def change(self, schedule_id: UUID, changes: dict[str, Any]) -> Schedule:
        """Changes columns. With another trigger it begins anew: what was due before is not made up for.

        Raises:
            NotFound: there is none.
        """
        schedule = self.locked(schedule_id)
        moment = database_time(self._session)
        is_resumed = schedule.is_suspended and not changes.get("is_suspended", True)
        for name, value in changes.items():
            setattr(schedule, name, value)
        if "trigger" in changes:
            schedule.has_looked, schedule.last_error = False, ""
        if "trigger" in changes or is_resumed:
            schedule.next_due_at = first_look(TRIGGER.validate_python(schedule.trigger), moment)
        if schedule.is_suspended:
            schedule.next_due_at = None
        schedule.updated_at = moment
        self._session.flush()
        return schedule

    def look_now(self, schedule_id: UUID) -> Schedule:
        """Lets a watcher look at once.

        Raises:
            NotFound: there is none.
            Conflict: it is suspended.
        """
        schedule = self.locked(schedule_id)
        if schedule.is_suspended:
            raise Conflict("suspended", "the watcher is suspended: resume it", "suspended")
        schedule.next_due_at = database_time(self._session)
        self._session.flush()
        return schedule

    def remove(self, schedule_id: UUID) -> None:
        """Removes a schedule and its fires; what it submitted stays.

        Raises:
            NotFound: there is none.
        """
        self.get(schedule_id)
        self._session.execute(delete(Schedule).where(Schedule.id == schedule_id))

    def last_fires(self, schedule_ids: Iterable[UUID]) -> dict[UUID, ScheduleFire]:
        """The newest fire of each of some schedules, without what was there before a watcher."""
        place = func.row_number().over(partition_by=ScheduleFire.schedule_id, order_by=ScheduleFire.id.desc())
        ranked = (
            select(ScheduleFire.id, place.label("place"))
            .where(ScheduleFire.schedule_id.in_(list(schedule_ids)), ScheduleFire.outcome != "known")
            .subquery()
        )
        newest = select(ranked.c.id).where(ranked.c.place == 1)
        rows = self._session.scalars(select(ScheduleFire).where(ScheduleFire.id.in_(newest)))
        return {row.schedule_id: row for row in rows}

    def fires(
        self,
        schedule_id: UUID,
        limit: int = 20,
        after: UUID | None = None,
        before: UUID | None = None,
        order: Order = "desc",
    ) -> Page[ScheduleFire]:
        """The fires of a schedule.

        Raises:
            NotFound: there is no such schedule.
        """
        self.get(schedule_id)
        query = select(ScheduleFire).where(ScheduleFire.schedule_id == schedule_id)
        return keyset_page(self._session, query, ScheduleFire.id, limit=limit, after=after, before=before, order=order)
