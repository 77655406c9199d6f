"""Garbage collection, and deletion's second half: files that no row needs are removed, records end by age.

Every step is safe to repeat, by any number of processes: rows are marked first, in a transaction that looks again at
what holds them and notes their paths (`removals`); after the commit the files go, and then the note is closed. A file
that is gone already is a success. Killed anywhere, the next collection goes on from there.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from store import artifacts, holders
from store.database import Database, database_time
from store.deletion import mark_deleted
from store.ids import encode_id
from store.leftovers import Leftover, leftovers
from store.models.record import Checkpoint
from store.models.registry import Removal
from store.models.run import Attempt, Run
from store.objects import object_store
from store.retention import RECORDS, due_records, purge
from store.settings import Settings
from store.states import TERMINAL, RunState

_BATCH = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """Something that a collection removes."""

    kind: str
    """`state`, `model`, `removal` (of what was deleted), `directory`, `temporary`, `logs`, `metrics`, `events` or
    `completions`."""
    subject: str
    """Id of the checkpoint, or path below its root; for records empty."""
    size_bytes: int
    """Of its files, as far as it is known; 0 for records."""
    count: int
    """Things of this kind: 1, for records the number of runs or jobs that lose them."""
    reason: str
    """For a person."""


@dataclass(slots=True)
class Report:
    """What a collection did."""

    items: list[Item] = field(default_factory=list)
    freed_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    """What could not be removed, and why; tried again the next time."""


class Collector:
    """Collections of one platform."""

    def __init__(
        self, settings: Settings, database: Database, after: Callable[[str], None] = lambda step: None
    ) -> None:
        """Nothing is looked at yet.

        Args:
            after: called after each step of a collection, with its name; tests end the process there.
        """
        self._settings, self._database, self._after = settings, database, after

    def plan(self) -> list[Item]:
        """What a collection would remove now. Nothing is changed."""
        with self._database.read() as session:
            moment = database_time(session)
            found = [
                Item(row.kind, encode_id("ckpt", row.id), row.size_bytes, 1, reason)
                for row, reason in self._due_checkpoints(session, moment)
            ]
            paths = [row.path for row in session.scalars(_open_removals())]
            found += [
                Item("removal", row.path, artifacts.size_at(self._settings, row.path), 1, row.reason)
                for row in session.scalars(_open_removals())
            ]
            found += [
                Item(left.kind, left.subject, left.size_bytes, 1, left.reason)
                for left in self._leftovers(session, frozenset(paths))
            ]
            for kind in RECORDS:
                if count := len(due_records(session, self._settings, kind, moment)):
                    days = kind.days(self._settings)
                    found.append(Item(kind.name, "", 0, count, f"older than {days:g} days"))
        return found

    def collect(self) -> Report:
        """Removes what the plan names. What fails is logged, reported, and left for the next time."""
        report = Report()
        with self._database.read() as session:
            moment = database_time(session)
            due = [(row.id, reason) for row, reason in self._due_checkpoints(session, moment)]
        for checkpoint_id, reason in due:
            if (item := self._mark(checkpoint_id, reason)) is not None:
                report.items.append(item)
            self._after("marked")
        self.remove_files(report)
        with self._database.read() as session:
            paths = frozenset(session.scalars(select(Removal.path).where(Removal.removed_at.is_(None))))
            left = list(self._leftovers(session, paths))
        for leftover in left:
            self._remove_leftover(leftover, report)
            self._after("leftover")
        for kind in RECORDS:
            count = 0
            while True:
                with self._database.write() as session:
                    done = purge(session, self._settings, kind, moment)
                self._after("purged")
                count += done
                if not done:
                    break
            if count:
                report.items.append(Item(kind.name, "", 0, count, f"older than {kind.days(self._settings):g} days"))
        return report

    def remove_files(self, report: Report | None = None) -> Report:
        """Removes the files of everything that was deleted so far."""
        report = report or Report()
        with self._database.read() as session:
            rows = list(session.scalars(_open_removals()))
        for row in rows:
            try:
                freed = artifacts.remove(self._settings, row.path)
            except (OSError, ValueError) as error:
                logger.warning("%s cannot be removed: %s", row.path, error)
                report.failures.append(f"{row.path}: {error}")
                continue
            self._after("removed")
            with self._database.write() as session:
                values = {"removed_at": database_time(session), "freed_bytes": freed}
                session.execute(
                    update(Removal).where(Removal.id == row.id, Removal.removed_at.is_(None)).values(values)
                )
            self._after("noted")
            report.freed_bytes += freed
        return report

    # Checkpoints.

    def _due_checkpoints(self, session: Session, moment: datetime) -> list[tuple[Checkpoint, str]]:
        """Checkpoints whose time is over and that nothing holds, with the reason."""
        reasons: dict[UUID, tuple[Checkpoint, str]] = {}
        is_kept = Checkpoint.deleted_at.is_(None)
        for row in session.scalars(select(Checkpoint).where(is_kept, Checkpoint.expires_at <= moment)):
            reasons[row.id] = (row, f"it expired on {row.expires_at:%Y-%m-%d}")
        for row, reason in self._old_states(session, moment):
            reasons.setdefault(row.id, (row, reason))
        held = holders.of_checkpoints(session, [row for row, _ in reasons.values()])
        due = [pair for identifier, pair in sorted(reasons.items()) if identifier not in held]
        # Rows of states that their run has replaced by newer ones hold nothing any more, whoever holds them.
        due += [
            (row, "its run went on and replaced it by a newer one")
            for row in session.scalars(select(Checkpoint).where(is_kept, Checkpoint.kind == "state"))
            if row.id not in reasons and self._is_replaced(row)
        ]
        return due

    def _old_states(self, session: Session, moment: datetime) -> Iterator[tuple[Checkpoint, str]]:
        days, newest_days = self._settings.retention_state_days, self._settings.retention_newest_state_days
        query = (
            select(Checkpoint, Run.state, Run.finished_at)
            .join(Run, Run.id == Checkpoint.run_id)
            .where(Checkpoint.kind == "state", Checkpoint.deleted_at.is_(None), Run.state.in_(TERMINAL))
            .where(Checkpoint.expires_at.is_(None))  # somebody said when
            .order_by(Checkpoint.run_id, Checkpoint.step.desc(), Checkpoint.attempt.desc())
        )
        last_run: UUID | None = None
        for row, state, finished_at in session.execute(query).all():
            is_newest, last_run = row.run_id != last_run, row.run_id
            limit = newest_days if is_newest and state != RunState.SUCCEEDED else days
            if limit and finished_at is not None and finished_at <= moment - timedelta(days=limit):
                yield row, f"its run ended more than {limit:g} days ago"

    def _is_replaced(self, row: Checkpoint) -> bool:
        """Whether its directory is gone and its attempt's is there: a root that is not mounted replaces nothing."""
        assert row.run_id is not None
        attempt = artifacts.run_directory(self._settings, row.run_id, row.attempt)
        if not attempt.is_dir() or artifacts.artifact_path(self._settings, row.path).exists():
            return False
        store = object_store(self._settings)
        return store is None or not store.has(row.path)

    def _mark(self, checkpoint_id: UUID, reason: str) -> Item | None:
        """Marks one checkpoint after another look at it; None where somebody was faster, or holds it by now."""
        with self._database.write() as session:
            row = session.get(Checkpoint, checkpoint_id, with_for_update=True)
            if row is None or row.deleted_at is not None:
                return None
            if row.run_id is not None:
                session.execute(select(Run.id).where(Run.id == row.run_id).with_for_update())
            is_there = row.run_id is None or not (row.kind == "state" and self._is_replaced(row))
            is_kept = row.expires_at is not None and row.expires_at > database_time(session)
            if is_there and (is_kept or row.id in holders.of_checkpoints(session, [row])):
                return None
            mark_deleted(session, row, reason, has_files=is_there)
            return Item(row.kind, encode_id("ckpt", row.id), row.size_bytes if is_there else 0, 1, reason)

    # What no row knows of.

    def _leftovers(self, session: Session, noted: frozenset[str]) -> Iterator[Leftover]:
        """What lies below the roots and belongs to nothing, without what is noted for removal already."""
        for left in leftovers(self._settings, lambda run_ids: _known(session, run_ids)):
            if left.subject not in noted:
                yield left
        if self._settings.artifact_store:  # each machine has copies of its own; the rows were marked on one of them
            gone = select(Checkpoint).where(Checkpoint.deleted_at.is_not(None), Checkpoint.run_id.is_not(None))
            paths = {path for row in session.scalars(gone) for path in artifacts.files_of(row)} - noted
            for path in sorted(paths):
                place = artifacts.artifact_path(self._settings, path)
                if place.exists():
                    size = artifacts.size_at(self._settings, path)
                    yield Leftover("directory", place, path, size, "a copy of what was deleted")

    def _remove_leftover(self, left: Leftover, report: Report) -> None:
        if left.run_id is not None:
            with self._database.read() as session:  # an attempt may have begun since
                if _is_needed(session, left):
                    return
        try:
            report.freed_bytes += artifacts.remove_whole(left.place)
            report.items.append(Item(left.kind, left.subject, left.size_bytes, 1, left.reason))
        except OSError as error:
            logger.warning("%s cannot be removed: %s", left.place, error)
            report.failures.append(f"{left.subject}: {error}")


def _open_removals() -> Select[Removal]:
    return select(Removal).where(Removal.removed_at.is_(None)).order_by(Removal.id)


def _known(session: Session, run_ids: list[UUID]) -> dict[UUID, dict[int, bool]]:
    """For each run with a row its attempts, and whether each has ended."""
    found: dict[UUID, dict[int, bool]] = {}
    for start in range(0, len(run_ids), _BATCH):
        batch = run_ids[start : start + _BATCH]
        found |= {run_id: {} for run_id in session.scalars(select(Run.id).where(Run.id.in_(batch)))}
        query = select(Attempt.run_id, Attempt.n, Attempt.ended_at).where(Attempt.run_id.in_(batch))
        for run_id, n, ended_at in session.execute(query):
            found[run_id][n] = ended_at is not None
    return found


def _is_needed(session: Session, left: Leftover) -> bool:
    """Whether a run or attempt has come to be, or goes on, to which a directory belongs."""
    assert left.run_id is not None
    if left.attempt is None:
        return session.scalar(select(func.count()).where(Run.id == left.run_id)) != 0
    mine = (Attempt.run_id == left.run_id, Attempt.n == left.attempt)
    if left.kind == "temporary":
        return session.scalar(select(func.count()).where(*mine, Attempt.ended_at.is_(None))) != 0
    return session.scalar(select(func.count()).where(*mine)) != 0
