"""What the wire shows of schedules."""

from datetime import datetime
from typing import Any, Literal

from api.schemas import Wire


class ScheduleFireRead(Wire):
    """One time that a schedule was due, or one thing that it found."""

    object: Literal["schedule.fire"] = "schedule.fire"
    id: str
    schedule_id: str
    key: str
    """The due time, or what was found: a schedule acts once for each."""
    cause: Literal["due", "found", "manual"]
    due_at: datetime
    fired_at: datetime
    outcome: Literal["submitted", "failed", "skipped", "known", "fetching"]
    """`known`: it was there before the watcher. `fetching`: the model comes from the hub; what follows waits for it."""
    objects: list[str]
    """Ids of what was submitted."""
    message: str
    """Why it failed or was skipped, or what is to be known of it."""


class ScheduleRead(Wire):
    """Something that is done at certain times, or whenever something new appears."""

    object: Literal["schedule"] = "schedule"
    id: str
    name: str
    trigger: dict[str, Any]
    """When, as it was submitted, with its defaults."""
    action: dict[str, Any]
    """What, as it was submitted, with its defaults."""
    concurrency: Literal["forbid", "allow"]
    is_suspended: bool
    next_due_at: datetime | None
    """When it fires or looks next; null while it is suspended, and where it never does."""
    last_fire: ScheduleFireRead | None
    last_looked_at: datetime | None
    """When a watcher last looked."""
    last_error: str
    """Why a watcher's last look failed; empty where it did not."""
    created_at: datetime
    updated_at: datetime
