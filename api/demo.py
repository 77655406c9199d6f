"""`make demo`: the main job, seen by a user. It starts the platform and is from then on nothing but an HTTP client."""

import argparse
import signal
import sys
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from api.calls import base
from api.client import Client
from api.demo_report import write_report
from api.local_platform import LocalPlatform, PlatformFailure, running_at
from api.progress import Progress, print_table
from api.schemas import ExperimentRead, RunRead
from api.transport import ApiFailure
from store.settings import Settings

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 120.0


class Interrupted(Exception):
    """A signal asked the demo to end."""


def main(arguments: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0 when every job succeeded, 1 when one did not or the platform did not start, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    data_dir = options.data_dir or Path("var/demo-services" if options.services else "var/demo")
    try:
        return _play(options, data_dir)
    except Interrupted:
        print("\nstopped before the end; `make demo` continues where it was", flush=True)
        return 130
    except (PlatformFailure, ApiFailure, OSError, ValueError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr, flush=True)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m api.demo", description="Plays an experiment on a platform of its own."
    )
    parser.add_argument(
        "--experiment", type=Path, default=Path("experiments/demo.toml"), help="the experiment's document"
    )
    parser.add_argument("--data-dir", type=Path, help="what the platform writes; kept for the next time")
    parser.add_argument("--report", type=Path, default=Path("demo-report.json"), help="where every number goes")
    parser.add_argument(
        "--services", action="store_true", help="PostgreSQL, Redis and Celery instead of the embedded default"
    )
    parser.add_argument(
        "--detach", action="store_true", help="stop the platform at the end instead of waiting for Ctrl-C"
    )
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


def _play(options: argparse.Namespace, data_dir: Path) -> int:
    document = tomllib.loads(options.experiment.read_text())
    began = time.monotonic()
    with ExitStack() as stack:
        platform = None
        if (url := running_at(data_dir)) is not None:
            print(f"a platform is running at {url}; using it", flush=True)
        else:
            how = "PostgreSQL, Redis and Celery" if options.services else "SQLite and the local loop"
            print(f"starting the platform with {how} in {data_dir} ...", flush=True)
            platform = stack.enter_context(LocalPlatform(data_dir, with_services=options.services))
            url = platform.url
        client = stack.enter_context(Client(url, settings=Settings(data_dir=data_dir)))
        experiment = _submit(client, document)
        _show_address(client, experiment)
        experiment = _follow(client, experiment, platform)
        is_successful = experiment.status == "succeeded"
        if is_successful:
            report = write_report(client, experiment.id, options.report)
            print_table(client.results_table(experiment=experiment.id).rows)
            seconds = time.monotonic() - began
            print(f"\n{len(report['rows'])} results and their completions: {options.report} ({seconds:.0f} s in all)")
        else:
            _show_failures(client, experiment)
        if platform is not None and not options.detach:
            _show_address(client, experiment)
            print("Ctrl-C stops the platform.", flush=True)
            _wait(platform)
    return 0 if is_successful else 1


def _submit(client: Client, document: dict[str, Any]) -> ExperimentRead:
    """The experiment of an earlier demo that was interrupted, or a new one."""
    for experiment in client.experiments():
        if experiment.name == document["name"] and not base.is_final(experiment):
            print(f"continuing {experiment.id}, which was interrupted", flush=True)
            return experiment
    experiment = client.submit_experiment(document | {"reuse": False})  # a demo that shows work does it
    print(f"submitted {experiment.id}: {len(experiment.jobs)} jobs, {experiment.num_runs} runs", flush=True)
    return experiment


def _show_address(client: Client, experiment: ExperimentRead) -> None:
    print(f"\ndashboard: {client.url}/experiments/{experiment.id}")
    print(f"log in once with this link: {client.login_link()}\n", flush=True)


def _follow(client: Client, experiment: ExperimentRead, platform: LocalPlatform | None) -> ExperimentRead:
    """Shows the experiment's progress until it ends; a killed process of the platform is started again."""
    progress = Progress(sys.stdout)
    last_answer = time.monotonic()
    while True:
        if platform is not None:
            for name in platform.revive():
                progress.note(f"the process `{name}` was killed; started again")
        try:
            experiment = client.experiment(experiment.id)
            last_answer = time.monotonic()
        except ApiFailure as error:
            if not base.is_outage(error) or time.monotonic() - last_answer > _PATIENCE_SECONDS:
                raise
        progress.show(experiment)
        if base.is_final(experiment):
            progress.close()
            return experiment
        time.sleep(_POLL_SECONDS)


def _show_failures(client: Client, experiment: ExperimentRead) -> None:
    print(f"\nthe experiment {experiment.status}", file=sys.stderr)
    for run in client.runs(experiment=experiment.id, order="asc"):
        if run.state in ("failed", "quarantined"):
            print(f"\n{run.job_name}, seed {run.seed} ({run.id}) {run.state}: {_reason(run)}", file=sys.stderr)
            log = "".join(chunk.text for chunk in client.logs(run.id))
            print("\n".join(f"  | {line}" for line in log.splitlines()[-20:]), file=sys.stderr, flush=True)


def _reason(run: RunRead) -> str:
    return run.status_reason if run.error is None else f"{run.error.code}: {run.error.message}"


def _wait(platform: LocalPlatform) -> None:
    """Leaves the platform running until a signal comes."""
    try:
        while True:
            platform.revive()
            time.sleep(_POLL_SECONDS)
    except Interrupted:
        print("\nstopping the platform ...", flush=True)


if __name__ == "__main__":
    sys.exit(main())
