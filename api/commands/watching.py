"""Following something to its end: a line for every change, progress every few seconds."""

import time
from collections.abc import Sequence

from api import schemas
from api.calls import base
from api.client import Client
from api.commands.tables import safe
from api.transport import ApiFailure

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
_QUIET_SECONDS = 10.0
"""Time between two lines about progress alone."""


def watch_until_end(client: Client, identifier: str) -> int:
    """Prints what changes until the end; 0 when all succeeded, else 1."""
    seen: dict[str, str] = {}
    spoke = answered = time.monotonic()
    while True:
        try:
            found = client.show(identifier)
            answered = time.monotonic()
        except ApiFailure as error:
            if not base.is_outage(error) or time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        for name, run in _runs(found):
            line = f"{run.state}{f': {run.status_reason}' if run.status_reason else ''}"
            if seen.get(run.id) != line:
                seen[run.id] = line
                spoke = time.monotonic()
                print(safe(f"{name} seed {run.seed}: {line}"), flush=True)
        if time.monotonic() - spoke > _QUIET_SECONDS:
            spoke = time.monotonic()
            for name, run in _runs(found):
                if run.state == "running":
                    step = f"{run.progress.step}/{run.progress.total} " if run.progress.total else ""
                    print(safe(f"{name} seed {run.seed}: {step}{run.progress.message or 'starting'}"), flush=True)
        if base.is_final(found):
            status = str(getattr(found, "status", "") or getattr(found, "state", ""))
            print(f"{identifier} {status}", flush=True)
            return 0 if status == "succeeded" else 1
        time.sleep(POLL_SECONDS)


def _runs(found: object) -> Sequence[tuple[str, schemas.RunSummary]]:
    """The runs of an object, each with its job's name."""
    if isinstance(found, schemas.ExperimentRead):
        return [(job.name, run) for job in found.jobs for run in job.runs]
    if isinstance(found, schemas.JobRead):
        return [(found.name, run) for run in found.runs]
    if isinstance(found, schemas.RunRead):
        return [(found.job_name, found)]
    raise ApiFailure(0, "no-id", "only a job, an experiment or a run can be watched")
