"""Watchers look for new models: below the models root, and at a hub. What is new is registered, and acts once, by the
primary key of its fire, whoever looks. Looking, hashing and asking are outside any transaction.
"""

import json
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from lco.hub_config import ImportConfig
from lco.manifest import MANIFEST
from store.confinement import confine
from store.database import Database, database_time
from store.errors import Invalid, StoreError
from store.ids import encode_id
from store.models.registry import Model
from store.models.schedule import Schedule, ScheduleFire
from store.registration import hash_local, register_hub, register_local
from store.repositories.models import Models
from store.schedule_specs import TRIGGER, DirectoryTrigger, HubTrigger
from store.schedules import begin_fire, claim_look, due_looks, finish_fire, is_active, lock_schedule, told
from store.settings import Settings
from store.text import clean_text
from worker.hub import HubFailed, commit_of

LOOK_SECONDS = 1.0
"""Time between two looks at which watchers are due."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LONGEST_HEADER = 100_000_000
_SOON_SECONDS = 5.0
"""Time to the next look while a model is fetched."""

logger = logging.getLogger(__name__)


class LookFailed(Exception):
    """A watcher could not look; the text says why, for a person."""


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
                keys = self._look(trigger)
            except (LookFailed, HubFailed) as reason:
                self._note(schedule, str(reason))
                keys = []
            else:
                keys = self._new(schedule, trigger, keys)
            for key in keys:
                if isinstance(trigger, HubTrigger):
                    self._fetch(schedule, trigger, key)
                elif not self._take(schedule, key):
                    break
            if isinstance(trigger, HubTrigger):
                self._go_on(schedule)

    def _look(self, trigger: DirectoryTrigger | HubTrigger) -> list[str]:
        """What is there now: names below the models root, or the one commit of the revision."""
        if isinstance(trigger, DirectoryTrigger):
            return models_below(self._settings.models, trigger, self._clock())
        if self._settings.hub_offline:
            raise LookFailed("LCO_HUB_OFFLINE is set: no hub is asked")
        token = os.environ.get(self._settings.hub_token_variable, "")
        commit = commit_of(self._settings.hub_url, trigger.repository, trigger.revision, token)
        return [f"{trigger.repository}@{commit}"]

    def _note(self, schedule: Schedule, reason: str) -> None:
        logger.warning("%s: %s", encode_id("sch", schedule.id), reason)
        with self._database.write() as session:
            if (row := lock_schedule(session, schedule.id)) is not None:
                row.last_error = clean_text(reason, 500)

    def _new(self, seen: Schedule, trigger: DirectoryTrigger | HubTrigger, keys: list[str]) -> list[str]:
        """Those that no fire is of yet; what was there before the watcher is written down as known."""
        with self._database.write() as session:
            schedule = self._same(session, seen)
            if schedule is None:
                return []
            known = select(ScheduleFire.key).where(
                ScheduleFire.schedule_id == schedule.id, ScheduleFire.cause == "found"
            )
            new = sorted(set(keys) - set(session.scalars(known)))
            if not schedule.has_looked and not trigger.include_existing:
                for key in new:
                    begin_fire(session, schedule, key, "found", "known")
                new = []
            schedule.has_looked, schedule.last_error = True, ""
        return new

    def _same(self, session: Session, seen: Schedule) -> Schedule | None:
        """The schedule, held; None where it was changed, suspended or removed while this process looked."""
        schedule = lock_schedule(session, seen.id)
        is_same = schedule is not None and schedule.trigger == seen.trigger and not schedule.is_suspended
        return schedule if is_same else None

    def _take(self, seen: Schedule, name: str) -> bool:
        """Registers a model below the models root and does what follows; False to leave it for the next look."""
        files = refusal = None
        with self._database.confined(seen.project_id).read() as session:
            is_registered = Models(session).named(name) is not None
            if seen.concurrency == "forbid" and is_active(session, seen.id):
                return False
        if not is_registered:
            try:
                files = hash_local(self._settings, name)  # it reads every byte: outside the transaction
            except Invalid as error:
                refusal = error.message
        with self._database.write() as session:
            schedule = self._same(session, seen)
            if schedule is None or not begin_fire(session, schedule, name, "found", "submitted"):
                return True
            model = Models(session).named(name)
            if model is None and files is not None:
                model = register_local(session, name, files)
            self._finish(session, schedule, name, model, name, refusal)
        return True

    def _fetch(self, seen: Schedule, trigger: HubTrigger, key: str) -> None:
        """Registers a commit, which a job fetches; its fire goes on when it is there."""
        commit = key.rpartition("@")[2]
        name = model_name(trigger.repository, commit)
        with self._database.write() as session:
            schedule = self._same(session, seen)
            if schedule is None or not begin_fire(session, schedule, key, "found", "fetching", message=f"as {name}"):
                return
            try:
                with session.begin_nested():
                    if Models(session).named(name) is None:
                        register_hub(
                            session, self._settings, name, ImportConfig(hub_id=trigger.repository, revision=commit)
                        )
            except StoreError as error:
                finish_fire(session, self._settings, schedule, key, refusal=told(error))

    def _go_on(self, seen: Schedule) -> None:
        """Does what follows for fetched models; while some are fetched, the next look comes soon."""
        with self._database.write() as session:
            schedule = self._same(session, seen)
            if schedule is None:
                return
            waiting = select(ScheduleFire.key).where(
                ScheduleFire.schedule_id == schedule.id, ScheduleFire.outcome == "fetching"
            )
            keys = list(session.scalars(waiting.order_by(ScheduleFire.id)))
            confine(session, schedule.project_id)
            for key in keys:
                name = model_name(*key.rsplit("@", 1))
                model = Models(session).named(name)
                state = "failed" if model is None else Models(session).states([model])[model.id].state
                if state == "fetching" or (schedule.concurrency == "forbid" and is_active(session, schedule.id)):
                    soon = database_time(session) + timedelta(seconds=_SOON_SECONDS)
                    schedule.next_due_at = min(schedule.next_due_at or soon, soon)
                    return
                refusal = "the model could not be fetched; its job says why" if state == "failed" else None
                self._finish(session, schedule, key, model, name, refusal)

    def _finish(
        self, session: Session, schedule: Schedule, key: str, model: Model | None, name: str, refusal: str | None
    ) -> None:
        """What follows for a registered model."""
        weights = None if model is None else Models(session).states([model])[model.id].checkpoint
        revision = "" if model is None else model.revision
        finish_fire(
            session,
            self._settings,
            schedule,
            key,
            values={"model": f"model:{name}", "name": name, "revision": revision},
            checkpoint_id=None if weights is None else weights.id,
            note=f"as model:{name}",
            refusal=refusal or "",
        )


def model_name(repository: str, commit: str) -> str:
    """The name under which a commit of a repository is registered: `small-model-0123456789ab`."""
    return f"{repository.rpartition('/')[2]}-{commit[:12]}"


def models_below(root: Path, trigger: DirectoryTrigger, now: float) -> list[str]:
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
    return [name for name in wanted if is_whole_model(root / name, trigger.stable_seconds, now)]


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
