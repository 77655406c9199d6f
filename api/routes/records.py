"""Events and logs of jobs and runs, as lists and as streams."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from api import schemas, views
from api.auth import requires
from api.dependencies import DatabaseDep, HubDep
from api.ids import parse_id
from api.pagination import Order, log_cursor, make_page, number_cursor, page_response
from api.streaming import Step
from store.database import Database
from store.repositories.jobs import Jobs
from store.repositories.metrics import Metrics
from store.repositories.records import Events, Logs
from store.repositories.runs import Runs
from store.retention import refuse_purged
from store.states import TERMINAL

router = APIRouter(prefix="/v1", tags=["events"])
_BATCH = 500
"""Events or pieces of a log that one look sends at most."""
_MAX_VALUES = 10_000

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(max_length=40, description="Begin after this cursor.")]
Before = Annotated[str | None, Query(max_length=40, description="End before this cursor.")]
LastEventId = Annotated[str | None, Header(max_length=40, description="Where a broken stream goes on.")]


@dataclass(frozen=True, slots=True)
class Subject:
    """A job, or a run of it."""

    job_id: UUID
    run_id: UUID | None = None


def existing_job(database: DatabaseDep, job_id: str) -> Subject:
    """The job of the path."""
    with database.read() as session:
        return Subject(Jobs(session).get(parse_id("job", job_id)).id)


def existing_run(database: DatabaseDep, run_id: str) -> Subject:
    """The run of the path."""
    with database.read() as session:
        run = Runs(session).get(parse_id("run", run_id))
        return Subject(run.job_id, run.id)


async def get_start(after: After = None, last_event_id: LastEventId = None) -> int:
    """The number of the last event that a client has: a broken stream goes on where it was."""
    return number_cursor(last_event_id or after, "after") or 0


async def get_log_start(after: After = None, last_event_id: LastEventId = None) -> tuple[int, int] | None:
    """The cursor of the last piece that a client has."""
    return log_cursor(last_event_id or after, "after")


StartDep = Annotated[int, Depends(get_start)]
LogStartDep = Annotated[tuple[int, int] | None, Depends(get_log_start)]
JobDep = Annotated[Subject, Depends(existing_job)]
RunDep = Annotated[Subject, Depends(existing_run)]


def _events(
    request: Request,
    database: Database,
    subject: Subject,
    limit: int,
    after: str | None,
    before: str | None,
    order: Order,
) -> Response:
    with database.read() as session:
        rows = Events(session).page(
            subject.job_id,
            limit,
            number_cursor(after, "after"),
            number_cursor(before, "before"),
            order,
            run_id=subject.run_id,
        )
        data = [views.event(row) for row in rows.rows]
    return page_response(request, make_page(data, rows.has_more, [str(item.seq) for item in data]))


@router.get("/jobs/{job_id}/events", operation_id="jobs.events", response_model=schemas.Page[schemas.EventRead])
@requires("read")
def job_events(
    request: Request,
    database: DatabaseDep,
    subject: JobDep,
    limit: Limit = 100,
    after: After = None,
    before: Before = None,
    order: Order = "asc",
) -> Response:
    """Events of a job and of its runs, oldest first; the cursor is their gapless number."""
    return _events(request, database, subject, limit, after, before, order)


@router.get("/runs/{run_id}/events", operation_id="runs.events", response_model=schemas.Page[schemas.EventRead])
@requires("read")
def run_events(
    request: Request,
    database: DatabaseDep,
    subject: RunDep,
    limit: Limit = 100,
    after: After = None,
    before: Before = None,
    order: Order = "asc",
) -> Response:
    """Events of a run, oldest first; the cursor is their number within the job."""
    return _events(request, database, subject, limit, after, before, order)


@dataclass(slots=True)
class _Follower:
    """How far one stream is."""

    database: Database
    subject: Subject
    after: int
    from_step: int | None = None
    """Metrics are sent from this step on; None before the first look takes those to come."""
    sent: set[tuple[int, str]] = field(default_factory=set)
    """Step and key of the values of that step that were sent."""
    shown: str = ""
    """The object as it was last sent."""

    def look(self) -> Step:
        """New events, then the object where it changed, new metrics, and `end` after the last of them."""
        run_id = self.subject.run_id
        found: list[ServerSentEvent] = []
        with self.database.read() as session:
            # The object is read before its events: what ends it is then among them.
            if run_id is None:
                job = views.job(session, self.subject.job_id)
                is_over, name, body = job.status in TERMINAL, "job", job.model_dump_json()
            else:
                run = views.run(session, run_id)
                is_over, name, body = run.state in TERMINAL, "run", run.model_dump_json()
            page = Events(session).page(self.subject.job_id, _BATCH, self.after or None, run_id=run_id)
            for row in page.rows:
                self.after = row.seq
                event = views.event(row)
                found.append(ServerSentEvent(raw_data=event.model_dump_json(), event=row.type, id=str(row.seq)))
            if run_id is not None:
                found += self._metrics(session, run)
        if body != self.shown:
            self.shown = body
            found.append(ServerSentEvent(raw_data=body, event=name))
        is_last = is_over and not page.has_more
        if is_last:
            found.append(ServerSentEvent(raw_data=body, event="end"))
        return found, is_last

    def _metrics(self, session: Session, run: schemas.RunRead) -> list[ServerSentEvent]:
        """One event with the values since the last look; a step's values may come in two looks, so keys are kept."""
        if self.from_step is None:
            self.from_step = run.progress.step + 1
        rows = [
            row
            for row in Metrics(session).rows(parse_id("run", run.id), None, self.from_step, _MAX_VALUES)
            if (row.step, row.key) not in self.sent
        ]
        if not rows:
            return []
        self.from_step = rows[-1].step
        self.sent = {pair for pair in self.sent if pair[0] == self.from_step}
        values: dict[str, list[tuple[int, float | None]]] = {}
        for row in rows:
            values.setdefault(row.key, []).append((row.step, row.value))
            if row.step == self.from_step:
                self.sent.add((row.step, row.key))
        return [ServerSentEvent(data={"run_id": run.id, "values": values}, event="metric")]


@router.get("/jobs/{job_id}/events/stream", operation_id="jobs.stream", response_class=EventSourceResponse)
@requires("read")
async def job_stream(
    database: DatabaseDep,
    hub: HubDep,
    subject: JobDep,
    start: StartDep,
) -> AsyncIterator[ServerSentEvent]:
    """Events of a job as they come (`run.state`, ...), `job` whenever it changed, `end` when it has ended."""
    async for event in hub.follow(("job", subject.job_id), _Follower(database, subject, start).look):
        yield event


@router.get("/runs/{run_id}/events/stream", operation_id="runs.stream", response_class=EventSourceResponse)
@requires("read")
async def run_stream(
    database: DatabaseDep,
    hub: HubDep,
    subject: RunDep,
    start: StartDep,
    from_step: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="Metrics from this step on; by default those to come.")
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Events of a run as they come, `run` whenever it changed, `metric` for new values, `end` when it has ended."""
    assert subject.run_id is not None
    follower = _Follower(database, subject, start, from_step)
    async for event in hub.follow(("run", subject.run_id), follower.look):
        yield event


@router.get("/runs/{run_id}/logs", operation_id="runs.logs", response_model=schemas.Page[schemas.LogChunkRead])
@requires("read")
def logs(
    request: Request,
    database: DatabaseDep,
    subject: RunDep,
    limit: Limit = 100,
    after: After = None,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Only this attempt.")] = None,
    tail: Annotated[int | None, Query(ge=1, le=1000, description="Only the last pieces.")] = None,
) -> Response:
    """Output of a run in pieces, oldest first; the cursor is `ATTEMPT.CHUNK`."""
    assert subject.run_id is not None
    with database.read() as session:
        refuse_purged(Runs(session).get(subject.run_id), "logs")
        if tail is None:
            page = Logs(session).chunks(subject.run_id, log_cursor(after, "after"), limit, attempt)
            rows, has_more = page.rows, page.has_more
        else:
            rows, has_more = Logs(session).tail(subject.run_id, tail, attempt), False
        data = [views.log_chunk(row) for row in rows]
    return page_response(request, make_page(data, has_more, [item.cursor for item in data]))


@dataclass(slots=True)
class _LogFollower:
    """How far one stream of a log is."""

    database: Database
    run_id: UUID
    after: tuple[int, int] | None

    def look(self) -> Step:
        """New pieces of the log, and `end` after the last one of a run that has ended."""
        with self.database.read() as session:
            is_over = (
                Runs(session).get(self.run_id).state in TERMINAL
            )  # read before the log: what ends it is then in it
            page = Logs(session).chunks(self.run_id, self.after, _BATCH)
        found = []
        for row in page.rows:
            self.after = (row.attempt, row.chunk)
            chunk = views.log_chunk(row)
            found.append(ServerSentEvent(raw_data=chunk.model_dump_json(), event="log", id=chunk.cursor))
        is_last = is_over and not page.has_more
        if is_last:
            found.append(ServerSentEvent(data={}, event="end"))
        return found, is_last


@router.get("/runs/{run_id}/logs/stream", operation_id="runs.log_stream", response_class=EventSourceResponse)
@requires("read")
async def log_stream(
    database: DatabaseDep,
    hub: HubDep,
    subject: RunDep,
    start: LogStartDep,
) -> AsyncIterator[ServerSentEvent]:
    """Output of a run as it comes, one `log` event a piece, `end` when the run has ended."""
    assert subject.run_id is not None
    follower = _LogFollower(database, subject.run_id, start)
    async for event in hub.follow(("log", subject.run_id), follower.look):
        yield event
