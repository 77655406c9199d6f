"""Numbers about the whole platform for Prometheus, read from the database when they are asked for.

So any number of API processes tell the same, and none of them has to be told what a worker did.
"""

import shutil
from collections.abc import Iterable, Iterator
from datetime import timedelta

from sqlalchemy.orm import Session

from api.metrics import gauge, histogram
from store.database import Database, database_time
from store.disk import disk_of
from store.ids import encode_id
from store.models.run import Run
from store.models.worker import Worker
from store.repositories.runs import Runs
from store.repositories.signals import FENCED, RECONCILED, Signals
from store.repositories.workers import Workers
from store.settings import Settings

Values = dict[tuple[str, ...], float]
"""Labels' values -> number."""
WAIT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 86400.0)
"""Upper bounds in seconds of the wait before an attempt."""
_ALIVE = timedelta(seconds=30)
_MAX_RUNS = 200
"""Live runs with series of their own; the newest ones."""


def platform_lines(database: Database, settings: Settings) -> Iterator[str]:
    """The text of every metric that the database, and the disk, know.

    Args:
        database: what it is confined to is what is counted.
    """
    with database.read() as session:
        lines = [*_runs(session), *_workers(session), *_signals(session)]
    yield from lines
    yield from _disk(settings)


def _runs(session: Session) -> Iterator[str]:
    runs = Runs(session)
    counts: Values = {key: float(value) for key, value in runs.counts().items()}
    oldest: Values = {(key,): value for key, value in runs.oldest_queued_seconds().items()}
    ended: Values = {(key,): float(value) for key, value in runs.attempt_outcomes().items()}
    yield from gauge("lco_runs", "Runs by state and queue.", counts, ("state", "queue"))
    yield from gauge("lco_queue_oldest_seconds", "How long the oldest claimable run waits.", oldest, ("queue",))
    yield from gauge("lco_attempts_total", "Ended attempts by outcome.", ended, ("outcome",), kind="counter")
    waits = runs.waits(WAIT_BOUNDS)
    yield from histogram("lco_dispatch_seconds", "From claimable to claimed, of every attempt.", WAIT_BOUNDS, *waits)
    yield from _live(runs.live(_MAX_RUNS))


def _live(live: Iterable[Run]) -> Iterator[str]:
    """Speed and progress of the runs that a worker holds."""
    tokens: Values = {}
    steps: Values = {}
    for run in live:
        labels = (encode_id("run", run.id), run.kind)
        steps[labels] = float(run.progress_step)
        num_tokens, seconds = (run.latest_metrics.get(name) for name in ("train/num_tokens", "time/step_seconds"))
        if num_tokens is not None and seconds:
            tokens[labels] = num_tokens / seconds
    yield from gauge(
        "lco_run_tokens_per_second", "Trained tokens by wall time of a live run's last step.", tokens, ("run", "kind")
    )
    yield from gauge("lco_run_step", "Finished steps of a live run.", steps, ("run", "kind"))


def _workers(session: Session) -> Iterator[str]:
    after = database_time(session) - _ALIVE
    alive = [worker for worker in Workers(session).all() if worker.last_seen_at > after]
    held, gpus_held = Runs(session).held()
    yield from gauge("lco_workers", "Workers seen lately, by what they do.", _by_duty(alive), ("state",))
    slots: Values = {("offered",): float(sum(worker.slots for worker in alive)), ("busy",): float(held)}
    yield from gauge("lco_slots", "Slots that workers offer, and those with a run.", slots, ("state",))
    offered = {(worker.host, index) for worker in alive for index in worker.gpus}
    gpus: Values = {("offered",): float(len(offered)), ("busy",): float(gpus_held)}
    yield from gauge("lco_gpus", "GPUs that workers hand out, and those that runs have.", gpus, ("state",))


def _by_duty(alive: Iterable[Worker]) -> Values:
    counts: Values = {("serving",): 0.0, ("draining",): 0.0}
    for worker in alive:
        counts[("draining" if worker.is_draining else "serving",)] += 1
    return counts


def _signals(session: Session) -> Iterator[str]:
    signals = Signals(session).all()
    fenced: Values = {(): signals.get(FENCED, 0.0)}
    name = "lco_fenced_writes_total"
    yield from gauge(name, "Attempts whose writes were refused: their run was another's.", fenced, (), kind="counter")
    pending: Values = {(): float(Signals(session).num_pending_deliveries())}
    yield from gauge("lco_outbox_pending", "Notifications that their endpoint has not taken yet.", pending, ())
    if RECONCILED in signals:
        yield from gauge(
            "lco_reconciler_last_success_timestamp",
            "Unix time of the last round of repairs that succeeded.",
            {(): signals[RECONCILED]},
            (),
        )


def _disk(settings: Settings) -> Iterator[str]:
    free: Values = {}
    for place, path in (("data", settings.data_dir), ("artifacts", settings.artifacts)):
        if path.exists():
            free[(place,)] = float(shutil.disk_usage(path).free)
    ratio = disk_of(settings).used_percent / 100
    yield from gauge("lco_disk_used_ratio", "Use of the artifacts' disk, 0 to 1.", {(): ratio}, ())
    yield from gauge("lco_disk_free_bytes", "Room on the disks of the API's machine.", free, ("place",))
