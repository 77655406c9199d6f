"""Watchers look for new models: below the models root, and at a hub. Looking is outside any transaction; each new thing
acts once, by the primary key of its fire, whoever looks.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lco.manifest import MANIFEST
from store.database import Database
from store.ids import encode_id
from store.models.schedule import Schedule, ScheduleFire
from store.schedule_specs import TRIGGER, DirectoryTrigger, HubTrigger
from store.schedules import claim_look, due_looks, fire, is_active, lock_schedule
from store.settings import Settings
from store.text import clean_text

LOOK_SECONDS = 1.0
"""Time between two looks at which watchers are due."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LONGEST_HEADER = 100_000_000

logger = logging.getLogger(__name__)


class LookFailed(Exception):
    """A watcher could not look; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something that is there."""

    key: str
    """What it acts once under."""
    values: dict[str, str]
    """What the action's placeholders become."""


class Watchers:
    """The looks of one process; any number of processes may have some."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float] = time.time) -> None:
        """Nothing is looked at yet.

        Args:
            clock: seconds since the epoch, as the files' times are.
        """
        self._settings, self._database, self._clock = settings, database, clock

    def tick(self) -> None:
        """Every look that is due.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be asked.
        """
        with self._database.read() as session:
            due = due_looks(session)
        for schedule in due:
            trigger = TRIGGER.validate_python(schedule.trigger)
            assert isinstance(trigger, DirectoryTrigger | HubTrigger) and schedule.next_due_at is not None
            with self._database.write() as session:
                poll = timedelta(seconds=trigger.poll_seconds)
                if not claim_look(session, schedule.id, schedule.next_due_at, poll):
                    continue
            try:
                found = self._look(trigger)
            except LookFailed as reason:
                self._note(schedule, str(reason))
                continue
            self._act(schedule, trigger, found)

    def _look(self, trigger: DirectoryTrigger | HubTrigger) -> list[Found]:
        if isinstance(trigger, HubTrigger):
            raise LookFailed("hubs are not here yet")
        return models_below(self._settings.models, trigger, self._clock())

    def _note(self, schedule: Schedule, reason: str) -> None:
        logger.warning("%s: %s", encode_id("sch", schedule.id), reason)
        with self._database.write() as session:
            if (row := lock_schedule(session, schedule.id)) is not None:
                row.last_error = clean_text(reason, 500)

    def _act(self, seen: Schedule, trigger: DirectoryTrigger | HubTrigger, found: list[Found]) -> None:
        """Fires for what is new; what was there before the watcher is written down as known."""
        with self._database.write() as session:
            schedule = self._same(session, seen)
            if schedule is None:
                return
            new = [thing for thing in found if thing.key not in _known(session, schedule)]
            if not schedule.has_looked and not trigger.include_existing:
                for thing in new:
                    fire(session, self._settings, schedule, thing.key, "found", is_known=True)
                new = []
            schedule.has_looked, schedule.last_error = True, ""
        for thing in new:
            with self._database.write() as session:
                schedule = self._same(session, seen)
                if schedule is None or (schedule.concurrency == "forbid" and is_active(session, schedule.id)):
                    return  # the next look finds it again
                fire(session, self._settings, schedule, thing.key, "found", values=thing.values)

    def _same(self, session: Session, seen: Schedule) -> Schedule | None:
        """The schedule, held; None where it was changed, suspended or removed while this process looked."""
        schedule = lock_schedule(session, seen.id)
        is_same = schedule is not None and schedule.trigger == seen.trigger and not schedule.is_suspended
        return schedule if is_same else None


def _known(session: Session, schedule: Schedule) -> set[str]:
    query = select(ScheduleFire.key).where(ScheduleFire.schedule_id == schedule.id, ScheduleFire.cause == "found")
    return set(session.scalars(query))


def models_below(root: Path, trigger: DirectoryTrigger, now: float) -> list[Found]:
    """The whole models below the models root, by name.

    Args:
        now: seconds since the epoch.

    Raises:
        LookFailed: the root cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except FileNotFoundError:
        return []  # nothing was imported yet
    except OSError as error:
        raise LookFailed(f"the models root cannot be read: {error.strerror}") from None
    wanted = [name for name in names if _NAME.fullmatch(name) and fnmatchcase(name, trigger.pattern)]
    return [
        Found(f"model:{name}", {"model": f"model:{name}", "name": name})
        for name in wanted
        if is_whole_model(root / name, trigger.stable_seconds, now)
    ]


def is_whole_model(place: Path, stable_seconds: float, now: float) -> bool:
    """Whether a directory holds a model that nobody still writes: with our manifest at once, else after a rest.

    Without one, every file of weights must be as long as its header says, those of an index must be there, and no file
    may have changed within `stable_seconds`.
    """
    try:
        if not (place / "config.json").is_file() or not any(place.glob("*.safetensors")):
            return False
        if (place / MANIFEST).is_file():
            return True
        files = [path for path in place.rglob("*") if path.is_file()]
        newest = max(path.stat().st_mtime for path in [place, *files])
        if now - newest < stable_seconds:
            return False
        index = place / "model.safetensors.index.json"
        named = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else set()
        weights = [path for path in files if path.suffix == ".safetensors"]
        return all((place / str(name)).is_file() for name in named) and all(_is_whole_file(path) for path in weights)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it changes under our eyes, or is no model
        return False


def _is_whole_file(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_LONGEST_HEADER, size):
            return False
        header: dict[str, Any] = json.loads(stream.read(length))
    ends: list[int] = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)
