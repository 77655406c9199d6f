"""`lco status`: what the overview of the dashboard shows, in a terminal."""

from argparse import Namespace

from api.client import Client
from api.commands.tables import print_json, print_table, safe
from api.dashboard.words import span
from api.overview_schemas import OverviewRead


def status(options: Namespace) -> int:
    """Prints what goes on."""
    with Client() as client:
        found = client.overview()
    if options.json:
        return print_json(found)
    _print(found)
    return 0


def _print(found: OverviewRead) -> None:
    waits = f", the oldest for {span(found.queue.oldest_seconds)}" if found.queue.oldest_seconds is not None else ""
    print(f"workers  {found.num_workers} alive")
    print(f"slots    {found.slots.used} of {found.slots.total} in use, GPUs {found.gpus.used} of {found.gpus.total}")
    queue = found.queue
    print(f"queue    {queue.num_queued} queued{waits}; {queue.num_blocked} blocked, {queue.num_held} held")
    print(f"last day {found.num_finished} finished, {found.num_failed} failed")
    if found.running:
        print()
        rows = [
            [
                run.id,
                f"{run.job_name} seed {run.seed}",
                run.state,
                f"{run.progress.step}/{run.progress.total}" if run.progress.total else "",
                "" if run.eta_seconds is None else span(run.eta_seconds),
            ]
            for run in found.running
        ]
        print_table(["running", "job", "state", "step", "remaining"], rows)
    if found.failed:
        print()
        rows = [
            [run.id, f"{run.job_name} seed {run.seed}", run.error.code if run.error else run.state, _reason(run)]
            for run in found.failed
        ]
        print_table(["failed", "job", "error", "reason"], rows)


def _reason(run: object) -> str:
    error = getattr(run, "error", None)
    text = safe(error.message if error else getattr(run, "status_reason", ""))
    return next(iter(text.splitlines()), "")[:80]
