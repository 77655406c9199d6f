"""Runs whose worker fell silent are taken back; runs that waited long enough are queued again. Safe to run twice."""

import time
from collections.abc import Callable, Iterable
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store.database import now_expression
from store.effects import settle, state_event
from store.endings import Ending, end_attempt
from store.models.run import Run
from store.states import LIVE, Outcome, RunState

Beat = tuple[UUID, int, int]
"""(run, attempt, heartbeat counter)."""


class SilenceWatch:
    """How long heartbeat counters have stood still while this process was looking, by its own monotonic clock.

    Wall clocks decide nothing, and neither does time in which this process could not look: between two looks at most
    half a lease counts, so that a suspended or disconnected reaper does not take its own absence for theirs.
    """

    def __init__(self, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._silence: dict[Beat, float] = {}
        self._looked_at: float | None = None

    def look(self, beats: Iterable[Beat]) -> list[Beat]:
        """Takes the live runs' counters as they are now; gives those that stood still for the lease."""
        now = self._clock()
        elapsed = 0.0 if self._looked_at is None else min(now - self._looked_at, self._lease_seconds / 2)
        self._looked_at = now
        self._silence = {beat: self._silence[beat] + elapsed if beat in self._silence else 0.0 for beat in beats}
        return [beat for beat, seconds in self._silence.items() if seconds >= self._lease_seconds]

    def reset(self) -> None:
        """Forgets everything seen: after a database error every run gets a whole lease again."""
        self._silence = {}
        self._looked_at = None


def reap(session: Session, watch: SilenceWatch, max_infra_failures: int = 5) -> list[UUID]:
    """Ends the attempts that were silent for a lease as `lost`; gives their runs.

    A person's cancel or pause is carried out; else the run is queued again at once, while its budget lasts. The old
    owner's next guard fails. On a database error the watch is reset; a caller whose commit or connection fails calls
    `watch.reset()` itself.
    """
    try:
        live = select(Run.id, Run.attempt, Run.hb_seq).where(Run.state.in_(LIVE))
        silent = watch.look((row.id, row.attempt, row.hb_seq) for row in session.execute(live))
        reaped = []
        happenings = []
        for run_id, attempt, hb_seq in sorted(silent):
            still_silent = (
                update(Run)
                .where(Run.id == run_id, Run.attempt == attempt, Run.hb_seq == hb_seq, Run.state.in_(LIVE))
                .values(worker_id=None)
                .returning(Run.id)
            )
            if session.execute(still_silent).scalar_one_or_none() is None:
                continue
            ending = Ending(outcome=Outcome.LOST, message="no heartbeat", error_code="lost")
            _, told = end_attempt(session, run_id, attempt, ending, max_infra_failures)
            happenings += told
            reaped.append(run_id)
        settle(session, happenings)
    except SQLAlchemyError:
        watch.reset()
        raise
    return reaped


def promote_waiting(session: Session) -> list[UUID]:
    """Queues the runs whose back-off is over; gives them."""
    moment = now_expression(session)
    due = (
        update(Run)
        .where(Run.state == RunState.RETRY_WAIT, Run.available_at <= moment)
        .values(state=RunState.QUEUED, status_reason="", queued_at=moment, hint_at=None, version=Run.version + 1)
        .returning(Run.id, Run.job_id, Run.seed, Run.attempt)
    )
    rows = session.execute(due).all()
    settle(
        session,
        [
            state_event(row.id, row.job_id, row.seed, row.attempt, RunState.QUEUED, "its back-off is over")
            for row in rows
        ],
    )
    return [row.id for row in rows]
