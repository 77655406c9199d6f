"""The overview: one model for the page, the route, the client and `lco status`."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from api import views
from api.overview_schemas import EndedRun, LiveRun, OverviewRead, QueueRead, Slots
from api.schemas import RunRead
from store.database import database_time
from store.ids import decode_id
from store.models.run import Attempt, Run
from store.repositories.jobs import Experiments
from store.repositories.overview import Ends, open_attempts
from store.repositories.runs import Runs
from store.repositories.workers import Workers
from store.states import LIVE, RunState

DAY = timedelta(days=1)
FAILED = (RunState.FAILED, RunState.QUARANTINED)
_MOST = 20
_MOST_LIVE = 100


def overview(session: Session) -> OverviewRead:
    """What goes on now, and what ended within a day."""
    moment = database_time(session)
    since = moment - DAY
    live = live_runs(session, moment)
    counts = Runs(session).counts()
    states: Counter[str] = Counter()
    for (state, _), count in counts.items():
        states[state] += count
    oldest = Runs(session).oldest_queued_seconds()
    workers = [worker for row in Workers(session).page(100).rows if (worker := views.worker(row)).is_alive]
    ends = Ends(session)
    ended = ends.counts(since)
    num_live = sum(states[state] for state in LIVE)
    return OverviewRead(
        states=dict(states),
        running=live,
        queue=QueueRead(
            num_queued=states[RunState.QUEUED],
            num_blocked=states[RunState.BLOCKED],
            num_held=states[RunState.PAUSED] + states[RunState.RETRY_WAIT],
            oldest_seconds=max(oldest.values(), default=None),
        ),
        slots=Slots(total=sum(worker.slots for worker in workers), used=num_live),
        gpus=Slots(total=sum(len(worker.gpus) for worker in workers), used=sum(run.gpus for run in live)),
        num_workers=len(workers),
        since=since,
        failed=_ended(session, ends.newest(FAILED, since, _MOST)),
        num_failed=sum(ended.get(state, 0) for state in FAILED),
        finished=_ended(session, ends.newest([RunState.SUCCEEDED], since, _MOST)),
        num_finished=ended.get(RunState.SUCCEEDED, 0),
    )


def live_runs(session: Session, moment: datetime) -> list[LiveRun]:
    """The runs that workers hold, newest first."""
    rows = [row for state in sorted(LIVE) for row in Runs(session).page(_MOST_LIVE, state=state).rows]
    rows.sort(key=lambda row: row.id, reverse=True)
    attempts = open_attempts(session, (row.id for row in rows))
    found = views.runs(session, rows)
    names = _experiments(session, found)
    return [
        LiveRun(
            **run.model_dump(),
            experiment=names.get(run.experiment_id or ""),
            host=attempts[row.id].host if row.id in attempts else "",
            gpu_indices=attempts[row.id].gpus if row.id in attempts else [],
            eta_seconds=_eta(row, attempts.get(row.id), moment),
        )
        for row, run in zip(rows, found, strict=True)
    ]


def _eta(run: Run, attempt: Attempt | None, moment: datetime) -> float | None:
    """Seconds that the remaining steps take, if each takes what those of this attempt took."""
    if attempt is None or not run.progress_total:
        return None
    num_done = run.progress_step - (attempt.resumed_from_step or 0)
    if num_done <= 0:
        return None
    elapsed = ((run.progress_at or moment) - attempt.started_at).total_seconds()
    remaining = max(run.progress_total - run.progress_step, 0)
    return max(elapsed, 0.0) / num_done * remaining


def _ended(session: Session, rows: Sequence[Run]) -> list[EndedRun]:
    found = views.runs(session, rows)
    names = _experiments(session, found)
    return [EndedRun(**run.model_dump(), experiment=names.get(run.experiment_id or "")) for run in found]


def _experiments(session: Session, runs: Sequence[RunRead]) -> dict[str, str]:
    """Names of the runs' experiments by id."""
    shown = {run.experiment_id for run in runs if run.experiment_id is not None}
    return {one: Experiments(session).get(decode_id("exp", one)).name for one in sorted(shown)}
