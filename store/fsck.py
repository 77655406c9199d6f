"""The invariants that every fault must leave intact, checked over the whole store: `lco fsck`.

Each check yields findings and changes nothing. A platform that works meanwhile is no trouble: rows are read in one
snapshot, and files of what is under way are not judged.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from lco.manifest import MANIFEST, read_manifest
from store.artifacts import artifact_path, below, run_directory
from store.database import Database, is_current
from store.dumps import is_kept
from store.ids import decode_id, encode_id
from store.models.dataset import Dataset
from store.models.job import Job
from store.models.record import Checkpoint, Event, Result
from store.models.run import Attempt, Run, RunDependency
from store.models.tables import Base
from store.objects import DATA, is_published, object_store
from store.settings import Settings
from store.states import LIVE, TERMINAL, RunState, job_status

_YOUNG_SECONDS = 3600.0
"""Younger files without a row may be on their way to one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant that does not hold."""

    check: str
    """Its name."""
    object: str
    """Id or path of what is wrong."""
    message: str
    """What is wrong, and what to do where something can be done."""

    def document(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Scope:
    session: Session
    settings: Settings
    is_deep: bool


def check(
    database: Database, settings: Settings, *, is_deep: bool = True, say: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """Every finding of every check, as they come.

    Args:
        is_deep: read every published file against its manifest; otherwise only look whether it is there.
        say: told the name of each check before it starts.
    """
    say("schema")
    if not is_current(database.engine):
        yield Finding("schema", "database", "it is not at the newest migration: run `lco migrate`")
        return
    with database.read() as session:
        if database.engine.dialect.name == "postgresql":
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        scope = _Scope(session, settings, is_deep)
        for name, function in CHECKS.items():
            say(name)
            for place, message in function(scope):
                yield Finding(name, place, message)


_Found = Iterator[tuple[str, str]]


def _database(scope: _Scope) -> _Found:
    """SQLite's own checks of its file; PostgreSQL checks its pages itself."""
    if scope.session.get_bind().dialect.name != "sqlite":
        return
    connection = scope.session.connection()
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield "database", f"{line}; restore a backup"
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"{table} row {row}", f"names a row of {parent} that does not exist"


def _attempts(scope: _Scope) -> _Found:
    """Attempts count 1, 2, ... up to the run's fencing token, and are open while the run is live alone."""
    counted = (
        select(
            Attempt.run_id,
            func.count().label("num"),
            func.max(Attempt.n).label("last"),
            func.sum(sa.case((Attempt.ended_at.is_(None), 1), else_=0)).label("num_open"),
        )
        .group_by(Attempt.run_id)
        .subquery()
    )
    query = (
        select(Run.id, Run.state, Run.attempt, Run.worker_id, counted.c.num, counted.c.last, counted.c.num_open)
        .outerjoin(counted, counted.c.run_id == Run.id)
        .order_by(Run.id)
    )
    for row in scope.session.execute(query):
        place = encode_id("run", row.id)
        num, last, num_open = row.num or 0, row.last or 0, row.num_open or 0
        if not num == last == row.attempt:
            yield place, f"has {num} attempts, the newest is {last}, and its fencing token is {row.attempt}"
        is_live = RunState(row.state) in LIVE
        if num_open != is_live:
            yield place, f"is {row.state} with {num_open} open attempts"
        if is_live != (row.worker_id is not None):
            yield place, f"is {row.state} and {'has no' if is_live else 'has a'} worker"


def _jobs(scope: _Scope) -> _Found:
    """A job's status is what its runs' states say."""
    states: dict[Any, list[str]] = {}
    for job_id, state in scope.session.execute(select(Run.job_id, Run.state)):
        states.setdefault(job_id, []).append(state)
    for job in scope.session.execute(select(Job.id, Job.status).order_by(Job.id)):
        present = states.get(job.id, [])
        if not present:
            yield encode_id("job", job.id), "has no run"
        elif job.status != job_status(present):
            yield encode_id("job", job.id), f"is {job.status} while its runs say {job_status(present)}"


def _events(scope: _Scope) -> _Found:
    """Events of a job are numbered without a gap up to the job's counter."""
    counted = (
        select(Event.job_id, func.count().label("num"), func.max(Event.seq).label("last"))
        .group_by(Event.job_id)
        .subquery()
    )
    query = select(Job.id, Job.event_seq, counted.c.num, counted.c.last).outerjoin(counted, counted.c.job_id == Job.id)
    for row in scope.session.execute(query.order_by(Job.id)):
        num, last = row.num or 0, row.last or 0
        is_purged = num == 0 and scope.settings.retention_event_days > 0
        if (last != row.event_seq or num != last) and not is_purged:
            yield (
                encode_id("job", row.id),
                f"has {num} events, the newest is {last}, and its counter says {row.event_seq}",
            )


def _dependencies(scope: _Scope) -> _Found:
    """A blocked run waits for as many unfinished runs as it says; none waits for a run that failed."""
    needs = sa.alias(Run.__table__, "needs")
    unfinished = (
        select(RunDependency.run_id, func.count().label("num"))
        .join(needs, needs.c.id == RunDependency.needs_id)
        .where(needs.c.state != RunState.SUCCEEDED)
        .group_by(RunDependency.run_id)
        .subquery()
    )
    query = (
        select(Run.id, Run.state, Run.blocked_on, unfinished.c.num)
        .outerjoin(unfinished, unfinished.c.run_id == Run.id)
        .where(Run.state.not_in(TERMINAL))
        .order_by(Run.id)
    )
    for row in scope.session.execute(query):
        if row.blocked_on != (row.num or 0):
            yield encode_id("run", row.id), f"waits for {row.blocked_on} runs, {row.num or 0} are unfinished"
        elif row.state in LIVE | {RunState.QUEUED} and row.blocked_on:
            yield (
                encode_id("run", row.id),
                f"is {row.state} although {row.blocked_on} runs that it needs are unfinished",
            )


def _results(scope: _Scope) -> _Found:
    """Results belong to runs that succeeded, once for each measurement, and count what they say."""
    query = select(Result.id, Run.state).join(Run, Run.id == Result.run_id).where(Run.state != RunState.SUCCEEDED)
    for row in scope.session.execute(query):
        yield encode_id("res", row.id), f"belongs to a run that is {row.state}"
    key = (Result.run_id, Result.benchmark, Result.metric, Result.decoding, Result.eval_seed)
    for double in scope.session.execute(select(*key, func.count()).group_by(*key).having(func.count() > 1)):
        run_id, benchmark, metric, decoding, eval_seed, num = double
        yield encode_id("run", run_id), f"has {num} results {benchmark} {metric} {decoding} of eval seed {eval_seed}"
    for identifier in scope.session.scalars(select(Result.id).where(Result.num_unscored > Result.num_examples)):
        yield encode_id("res", identifier), "counts more unscored examples than examples"


def _outputs(scope: _Scope) -> _Found:
    """What a succeeded run published is there, whole."""
    query = (
        select(Run.id, Run.output_attempt, Run.reused_run_id)
        .where(
            Run.state == RunState.SUCCEEDED,
            Run.output_attempt > 0,
            ~sa.exists().where(
                Checkpoint.run_id == Run.id, Checkpoint.kind == "model", Checkpoint.deleted_at.is_not(None)
            ),
        )
        .order_by(Run.id)
    )
    for row in scope.session.execute(query):
        if row.reused_run_id is None:
            yield from _directory(scope, run_directory(scope.settings, row.id, row.output_attempt), "run", row.id)


def _checkpoints(scope: _Scope) -> _Found:
    """The directory of each checkpoint is there with the manifest that its row names."""
    table = Base.metadata.tables["checkpoints"]
    query = (
        select(Checkpoint.id, Checkpoint.path, Checkpoint.kind, Run.state)
        .join(Run, Run.id == Checkpoint.run_id)
        .where(is_kept(table), Checkpoint.kind == "model")
    )
    for row in scope.session.execute(query.order_by(Checkpoint.id)):
        place = artifact_path(scope.settings, row.path)
        if not place.is_dir() and not (scope.settings.artifact_store and is_published(scope.settings, place.parent)):
            yield encode_id("ckpt", row.id), f"its directory {row.path} is gone: restore it, or delete the checkpoint"


def _directory(scope: _Scope, directory: Path, prefix: str, identifier: Any) -> _Found:
    store = object_store(scope.settings)
    if store is not None and (lost := store.missing_files(directory.relative_to(scope.settings.artifacts).as_posix())):
        yield encode_id(prefix, identifier), f"the object store lacks {', '.join(lost[:5])}: push it there again"
    if store is not None and not (directory / MANIFEST).is_file():
        return  # it ran on another machine
    try:
        manifest = read_manifest(directory, is_checked=scope.is_deep)
        for role, relative in manifest.outputs.items():
            if not below(directory, relative).exists():
                raise ValueError(f"{directory}: the output {role} is missing")
    except ValueError as error:
        shown = str(error).replace(f"{scope.settings.artifacts}/", "")
        yield encode_id(prefix, identifier), f"{shown}: restore it from a backup, or run the job again"


def _datasets(scope: _Scope) -> _Found:
    """The rows of each data set are there, as many bytes as were uploaded."""
    store = object_store(scope.settings)
    for row in scope.session.execute(select(Dataset.name, Dataset.version, Dataset.path, Dataset.size_bytes)):
        place = below(scope.settings.data, row.path)
        size = place.stat().st_size if place.is_file() else None
        if size is None and store is not None:
            size = store.size_bytes(f"{DATA}/{row.path}")
        if size is None:
            yield f"dataset:{row.name}@{row.version}", f"its file {row.path} is gone: upload the rows again"
        elif size != row.size_bytes:
            yield f"dataset:{row.name}@{row.version}", f"its file {row.path} has another size than when it was uploaded"


def _orphans(scope: _Scope) -> _Found:
    """Run directories belong to attempts, apart from those younger than an hour."""
    root = scope.settings.artifacts / "runs"
    known = {(run_id, n) for run_id, n in scope.session.execute(select(Attempt.run_id, Attempt.n))}
    for directory in sorted(root.glob("*/*")) if root.is_dir() else ():
        try:
            key = decode_id("run", directory.parent.name), int(directory.name)
        except ValueError:
            key = None
        if key in known or time.time() - directory.stat().st_mtime < _YOUNG_SECONDS:
            continue
        yield f"{directory.parent.name}/{directory.name}", "no attempt has this directory; `lco gc` removes it"


CHECKS: dict[str, Callable[[_Scope], _Found]] = {
    "database": _database,
    "attempts": _attempts,
    "jobs": _jobs,
    "events": _events,
    "dependencies": _dependencies,
    "results": _results,
    "outputs": _outputs,
    "checkpoints": _checkpoints,
    "data sets": _datasets,
    "orphans": _orphans,
}
"""What is checked, in this order."""
