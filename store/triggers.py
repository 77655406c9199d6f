"""Checkpoints that a suite has not judged although its triggers say so: new ones that meet a filter, those of aliases.

What is due is read from the rows, so no write of a checkpoint or alias knows of suites; and a verdict is unique for
suite, version and checkpoint, so any number of reconcilers may fire what they find.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from store.database import Database, database_time
from store.errors import StoreError
from store.ids import encode_id
from store.models.dataset import Alias
from store.models.job import Job
from store.models.record import Checkpoint
from store.models.run import Run
from store.models.suite import Suite, Verdict
from store.regression import request_verdict
from store.settings import Settings
from store.suite_specs import CheckpointFilter, Triggers

_OVERLAP = timedelta(minutes=10)
"""How long the transaction that writes a checkpoint may take: rows become visible after the time that they bear."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """A verdict to be asked for."""

    suite_id: UUID
    project_id: UUID
    checkpoint_id: UUID
    cause: str


def fire_due(database: Database, settings: Settings) -> list[UUID]:
    """Asks for every verdict that is due; their ids, also where another reconciler was faster."""
    with database.read() as session:
        moment = database_time(session)
        suites = list(session.scalars(select(Suite).where(Suite.archived_at.is_(None)).order_by(Suite.id)))
        found = [(suite, list(due(session, suite))) for suite in suites if any(suite.triggers.values())]
    asked = []
    for suite, several in found:
        for one in several:
            try:
                with database.confined(one.project_id).write() as session:
                    verdict = request_verdict(
                        session,
                        settings,
                        suite_id=one.suite_id,
                        checkpoint_id=one.checkpoint_id,
                        cause=one.cause,
                        project_id=one.project_id,
                    )
                asked.append(verdict.id)
            except (StoreError, ValueError) as error:  # archived, or the checkpoint is gone: the others are due anyway
                logger.warning("no verdict on %s: %s", encode_id("ckpt", one.checkpoint_id), error)
        _scanned(database, suite, moment)
    return asked


def _scanned(database: Database, suite: Suite, moment: datetime) -> None:
    """Notes up to when a suite's new checkpoints were looked at; now and then, for a write costs more than the scan."""
    if moment - suite.scanned_to > _OVERLAP:
        with database.write() as session:
            note = update(Suite).where(Suite.id == suite.id, Suite.scanned_to < moment)
            session.execute(note.values(scanned_to=moment))


def due(session: Session, suite: Suite) -> Iterator[Due]:
    """The verdicts that a suite's triggers ask for and that nobody asked for yet."""
    triggers = Triggers.model_validate(suite.triggers, strict=False)
    if triggers.checkpoints is not None:
        for checkpoint_id in _new_checkpoints(session, suite, triggers.checkpoints):
            yield Due(suite.id, suite.project_id, checkpoint_id, "checkpoint filter")
    if triggers.aliases:
        for name, checkpoint_id in _of_aliases(session, suite, triggers.aliases):
            yield Due(suite.id, suite.project_id, checkpoint_id, f"alias {name}")


def _new_checkpoints(session: Session, suite: Suite, wanted: CheckpointFilter) -> Iterator[UUID]:
    begin = max(suite.watched_from, suite.scanned_to - _OVERLAP)
    query = (
        select(Checkpoint.id, Checkpoint.step, Job.kind, Job.details)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Job, Job.id == Run.job_id)
        .where(
            Checkpoint.kind == "model",
            Checkpoint.deleted_at.is_(None),
            Checkpoint.project_id == suite.project_id,
            Checkpoint.created_at >= begin,
            ~exists().where(Verdict.suite_id == suite.id, Verdict.checkpoint_id == Checkpoint.id),
        )
        .order_by(Checkpoint.id)
    )
    for row in session.execute(query):
        has_kind = not wanted.kinds or row.kind in wanted.kinds
        has_metadata = all(row.details.get(key) == value for key, value in wanted.metadata.items())
        if has_kind and has_metadata and row.step % wanted.step_multiple == 0:
            yield row.id


def _of_aliases(session: Session, suite: Suite, names: list[str]) -> Iterator[tuple[str, UUID]]:
    query = (
        select(Alias.name, Alias.checkpoint_id)
        .where(
            Alias.project_id == suite.project_id,
            Alias.name.in_(names),
            ~exists().where(
                Verdict.suite_id == suite.id,
                Verdict.version == suite.version,
                Verdict.checkpoint_id == Alias.checkpoint_id,
            ),
        )
        .order_by(Alias.name)
    )
    for row in session.execute(query):
        yield row.name, row.checkpoint_id
