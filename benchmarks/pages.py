"""How long the dashboard's pages take with a thousand runs, and how large they are.

    PYTHONPATH=. python benchmarks/pages.py

An experiment of 250 jobs on 4 train seeds over a matrix of axes, with results of every evaluation, and a list of a
thousand jobs. Times are those of the server alone, the median of five; a page is also opened in Chromium, where there
is one, until it is loaded and laid out.
"""

import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from store.database import Database, migrate
from store.ids import encode_id
from store.models.base import utc_now
from store.models.tables import Event, Experiment, Job, Result, Run, RunDependency
from store.settings import Settings
from store.states import RunState, job_status
from tests.dashboard import browser

METHODS = 25
RATES = 5
SEEDS = 4
TRIES = 5


class Filled:
    """Where things are."""

    experiment = ""
    job = ""


def fill(database: Database, settings: Settings) -> Filled:
    """A thousand runs in one experiment, and 750 jobs beside it."""
    with database.write() as session:
        return _fill(session)


def _fill(session: Session) -> Filled:
    now = utc_now()
    rates = [round(1e-4 * 2**power, 6) for power in range(RATES)]
    methods = [f"method-{number:02}" for number in range(METHODS)]
    document = {
        "name": "sweep",
        "axes": {"method": methods, "rate": rates},
        "jobs": [
            {"each": ["method", "rate"], "name": "{method}-{rate}"},
            {"each": ["method", "rate"], "name": "eval-{method}-{rate}"},
        ],
    }
    experiment = Experiment(name="sweep", document=document)
    session.add(experiment)
    session.flush()
    found = Filled()
    found.experiment = encode_id("exp", experiment.id)
    for method in methods:
        for rate in rates:
            name = f"{method}-{rate}"
            states = [RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.RUNNING, RunState.QUEUED]
            trained = _job(session, experiment, name, "train", name, states, now)
            states[2:] = [RunState.BLOCKED] * 2
            _job(session, experiment, f"eval-{name}", "evaluation", name, states, now, trained)
            found.job = encode_id("job", trained[0].job_id)
    for number in range(750):
        session.add(Job(name=f"job-{number}", kind="train", method="alone", spec={}))
    return found


def _job(
    session: Session, experiment: Experiment, name: str, kind: str, method: str, states: list[RunState], now: Any,
    needs: list[Run] | None = None,
) -> list[Run]:  # fmt: skip
    job = Job(experiment_id=experiment.id, name=name, kind=kind, method=method, spec={}, status=job_status(states))
    session.add(job)
    session.flush()
    runs = []
    for seed, state in enumerate(states):
        is_over = state == RunState.SUCCEEDED
        run = Run(
            job_id=job.id, kind=kind, seed=seed, queue="lco.cpu", state=state, progress_step=50, progress_total=100,
            started_at=now - timedelta(minutes=5), finished_at=now if is_over else None,
        )  # fmt: skip
        session.add(run)
        runs.append(run)
    session.flush()
    for run, needed in zip(runs, needs or [], strict=False):
        session.add(RunDependency(run_id=run.id, needs_id=needed.id))
    job.event_seq = 1
    session.add(Event(job_id=job.id, seq=1, type="job.created", message="created"))
    if kind == "evaluation":
        for run in runs[:2]:
            session.add(
                Result(
                    run_id=run.id, job_id=job.id, experiment_id=experiment.id, method=method, benchmark="sums",
                    metric="pass@1", decoding="greedy", train_seed=run.seed, value=0.5 + run.seed / 100,
                    num_examples=1000,
                )
            )  # fmt: skip
    return runs


def main() -> int:
    """Prints a table in Markdown."""
    from starlette.testclient import TestClient

    with tempfile.TemporaryDirectory() as place:
        settings = Settings(data_dir=Path(place) / "empty")
        migrate(settings)
        migrated = Path(settings.sqlalchemy_url.removeprefix("sqlite:///"))
        with browser.serve(Path(place), migrated, fill) as served:
            pages = {
                "Overview": "/",
                "Experiments": "/experiments",
                "An experiment of 250 jobs, 1,000 runs": f"/experiments/{served.filled.experiment}",
                "Its stability": f"/experiments/{served.filled.experiment}/stability",
                "Its comparison with a baseline": f"/experiments/{served.filled.experiment}/compare",
                "Its results": f"/results?experiment={served.filled.experiment}",
                "Jobs, the first of 1,000": "/jobs",
                "A job": f"/jobs/{served.filled.job}",
            }
            headers = {"Authorization": f"Bearer {served.key}", "Accept": "text/html"}
            print("| page | server, ms | loaded, ms | HTML, kB |\n|---|---|---|---|")
            client = TestClient(served.app, served.address, headers=headers)
            loaded = _loaded(served, list(pages.values())) if browser.CHROMIUM else {}
            for title, path in pages.items():
                times = []
                for _ in range(TRIES):
                    begin = time.perf_counter()
                    answer = client.get(path)
                    times.append(1000 * (time.perf_counter() - begin))
                    assert answer.status_code == 200, (path, answer.text[:500])
                shown = f"{loaded[path]:.0f}" if path in loaded else ""
                print(f"| {title} | {statistics.median(times):.0f} | {shown} | {len(answer.content) / 1000:.0f} |")
    return 0


def _loaded(served: browser.Served, paths: list[str]) -> dict[str, float]:
    """Milliseconds until a page is loaded in Chromium, the median."""
    found = {}
    with browser.chromium() as started:
        tab = browser.new_tab(served, started, viewport={"width": 1280, "height": 900})
        tab.sign_in()
        tab.page.set_default_timeout(60_000)
        for path in paths:
            times = []
            for _ in range(TRIES):
                begin = time.perf_counter()
                tab.page.goto(served.address + path)
                tab.page.evaluate("document.body.offsetHeight")
                times.append(1000 * (time.perf_counter() - begin))
            found[path] = statistics.median(times)
    return found


if __name__ == "__main__":
    sys.exit(main())
