"""`lco experiments check`: documents validated and priced in this process, without a platform."""

import sys
from argparse import Namespace
from pathlib import Path

from api.bodies import experiment_of
from api.commands.documents import read_document
from api.commands.tables import print_json, print_table, shown
from api.commands.usage import UsageError
from api.errors import ApiError
from api.price_schemas import PriceRead
from api.price_views import priced
from store.errors import Invalid
from store.pricing import price, total_hours

DEFAULT = Path("experiments/paper")


def check(options: Namespace) -> int:
    """Validates and prices documents; 1 where one is wrong."""
    files = _files([Path(path) for path in options.paths] or [DEFAULT])
    found: list[PriceRead] = []
    wrong = 0
    jobs = []
    for file in files:
        document = read_document(file)
        try:
            if "jobs" not in document:
                raise UsageError(f"{file} is a single job; a check takes experiments, with `jobs`")
            submitted = experiment_of(document)
        except (ApiError, Invalid) as error:
            wrong += 1
            for line in told(error):
                print(f"{file}: {shown(line)}", file=sys.stderr)
            continue
        found.append(priced(submitted, options.device))
        jobs += price(submitted.spec, options.device).jobs
    if options.json:
        print_json(found)
    elif found:
        print_prices(found)
        if options.jobs:
            for one in found:
                print(f"\n{one.name}")
                print_jobs(one)
        if len(found) > 1:
            hours = total_hours(jobs)
            print(f"\nall together, equal jobs once: {_range(hours.low, hours.high)} {found[0].device} hours")
        print(_basis(found[0]))
    return 1 if wrong else 0


def told(error: ApiError | Invalid) -> list[str]:
    """What is wrong with a document, a line for each place."""
    if isinstance(error, Invalid):
        return [f"{error.pointer or '/'}: {error.message}"]
    return [f"{field.pointer or '/'}: {field.message}" for field in error.errors] or [str(error)]


def _files(paths: list[Path]) -> list[Path]:
    """The documents below some paths.

    Raises:
        UsageError: there is none.
    """
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"there is no document in {', '.join(map(str, paths))}")
    return files


def print_prices(found: list[PriceRead]) -> None:
    """A line for each document."""
    rows = []
    for one in found:
        known = [job for job in one.jobs if job.memory_bytes is not None]
        largest = max(known, key=lambda job: job.memory_bytes or 0.0, default=None)
        rows.append(
            [
                one.name,
                one.num_jobs,
                one.num_runs,
                f"{one.operations:.2g}",
                _range(one.device_hours_low, one.device_hours_high),
                "" if largest is None else f"{(largest.memory_bytes or 0) / 2**30:.1f}",
                sum(job.fits is False for job in one.jobs) or "",
                f"{one.judge_price:.0f}" if one.judge_price else "",
                one.num_assumed,
                one.num_published,
                sum(bool(job.problem) for job in one.jobs) or "",
            ]
        )
    print_table(
        [
            *("document", "jobs", "runs", "operations", "device hours", "GiB at most", "do not fit", "judge"),
            *("assumed", "published", "no price"),
        ],
        rows,
    )


def print_jobs(one: PriceRead) -> None:
    """A line for each job of a document."""
    print_table(
        ["job", "kind", "runs", "processes", "GiB each", "fits", "operations", "device hours", "note"],
        [
            [
                job.name,
                job.kind,
                job.runs,
                job.processes,
                "" if job.memory_bytes is None else f"{job.memory_bytes / 2**30:.1f}",
                "" if job.fits is None else "yes" if job.fits else "no",
                f"{job.operations:.2g}",
                _range(job.device_hours_low, job.device_hours_high),
                job.problem or (f"the same as {job.same_as}" if job.same_as else ""),
            ]
            for job in one.jobs
        ],
    )


def _range(low: float, high: float) -> str:
    def figure(value: float) -> str:
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else f"{value:.1g}"

    return f"{figure(low)} to {figure(high)}"


def _basis(one: PriceRead) -> str:
    low, high = (f"{100 * share:.0f}" for share in (one.utilisation_low, one.utilisation_high))
    return (
        f"hours of one {one.device} at {low} to {high} % of its peak; docs/paper-experiments.md says how they are made"
    )
