"""`lco submit`, the lists, `watch`, `logs`, `results`, `cancel` and its sisters: all through the client, over HTTP."""

import itertools
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from api import result_schemas, schemas
from api.calls import base
from api.client import Client
from api.commands.documents import read_document
from api.commands.experiments import print_jobs, print_prices
from api.commands.tables import print_json, print_table, safe
from api.commands.usage import UsageError
from api.commands.watching import watch_until_end
from api.figures import column_labels, figure, printed


def submit(options: Namespace) -> int:
    """Submits a file."""
    document = read_document(Path(options.file))
    is_experiment = "jobs" in document
    if options.seeds is not None:
        seeds = _seeds(options.seeds)
        for job in document["jobs"] if is_experiment else [document]:
            job["seeds"] = seeds
    if options.no_reuse:
        if not is_experiment:
            raise UsageError("--no-reuse is for experiments; a job of its own always runs")
        document["reuse"] = False
    if options.dry_run:
        return _dry_run(document if is_experiment else {"name": document.get("name", "job"), "jobs": [document]})
    with Client() as client:
        found = client.submit_experiment(document) if is_experiment else client.submit(document)
        if isinstance(found, schemas.ExperimentRead) and found.num_reused:
            print(f"{found.num_reused} of {found.num_runs} runs took over finished outputs", file=sys.stderr)
        if options.json:
            ended = client.wait(found.id) if options.wait else found
            print_json(ended)
            return 0 if not options.wait or _outcome(ended) == "succeeded" else 1
        print(found.id)
        return watch_until_end(client, found.id) if options.wait else 0


def _dry_run(document: dict[str, Any]) -> int:
    """Says what submitting would do and cost; the API's refusal is the command's."""
    with Client() as client:
        price = client.price_experiment(document)
        print_jobs(price)
        print()
        print_prices([price])
        found = client.check_experiment(document)
    if found.num_reused:
        print(f"{found.num_reused} of {found.num_runs} runs would take over finished outputs")
    return 0


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--seeds takes numbers such as 0,1,2, not {text!r}")
    return [int(part) for part in parts]


def list_jobs(options: Namespace) -> int:
    """Lists jobs."""
    with Client() as client:
        found = list(itertools.islice(client.jobs(experiment=options.experiment), options.limit))
    if options.json:
        return print_json(found)
    rows = [[job.id, job.name, job.kind, _status(job), _progress(job.progress), job.created_at] for job in found]
    return print_table(["id", "name", "kind", "status", "progress", "created"], rows)


def list_experiments(options: Namespace) -> int:
    """Lists experiments."""
    with Client() as client:
        found = list(itertools.islice(client.experiments(), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [item.id, item.name, item.status, f"{item.num_finished}/{item.num_runs}", item.created_at] for item in found
    ]
    return print_table(["id", "name", "status", "runs", "created"], rows)


def list_runs(options: Namespace) -> int:
    """Lists runs."""
    with Client() as client:
        found = list(itertools.islice(client.runs(experiment=options.experiment), options.limit))
    if options.json:
        return print_json(found)
    rows = [[run.id, run.job_name, run.seed, run.state, run.attempt, _progress(run.progress)] for run in found]
    return print_table(["id", "job", "seed", "state", "attempt", "progress"], rows)


def list_workers(options: Namespace) -> int:
    """Lists workers."""
    with Client() as client:
        found = list(itertools.islice(client.workers(), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [
            worker.id,
            worker.host,
            worker.pid,
            worker.dispatcher,
            ",".join(worker.queues),
            worker.slots,
            "draining" if worker.is_draining else "alive" if worker.is_alive else "gone",
            worker.last_seen_at,
        ]
        for worker in found
    ]
    return print_table(["id", "host", "pid", "dispatcher", "queues", "slots", "state", "seen"], rows)


def _status(job: schemas.JobRead) -> str:
    """The status of a job; a queued one that waits for other jobs is `blocked`."""
    is_blocked = job.status == "queued" and all(run.state == "blocked" for run in job.runs)
    return "blocked" if is_blocked else job.status


def _progress(progress: schemas.Progress) -> str:
    return f"{progress.step}/{progress.total or '?'}" if progress.step or progress.total else ""


def show(options: Namespace) -> int:
    """Prints an object."""
    with Client() as client:
        return print_json(client.show(options.id))


def watch(options: Namespace) -> int:
    """Follows something to its end."""
    with Client() as client:
        return watch_until_end(client, options.id)


def cancel(options: Namespace) -> int:
    """Cancels something."""
    with Client() as client:
        return _asked(client.cancel(options.id), "cancelling", "cancelled", options)


def pause(options: Namespace) -> int:
    """Pauses something."""
    with Client() as client:
        return _asked(client.pause(options.id), "pausing", "paused", options)


def resume(options: Namespace) -> int:
    """Resumes something."""
    with Client() as client:
        return _asked(client.resume(options.id), "resuming", "queued", options)


def retry(options: Namespace) -> int:
    """Ends the back-off of something."""
    with Client() as client:
        return _asked(client.retry(options.id), "retrying", "queued", options)


def _outcome(found: base.Object) -> str:
    return str(found.state if isinstance(found, schemas.RunRead) else found.status)


def _asked(found: base.Object, doing: str, done: str, options: Namespace) -> int:
    if options.json:
        return print_json(found)
    state = _outcome(found)
    is_under_way = state != done and not base.is_final(found)
    print(
        f"{found.id} is {doing} (now {state}; `lco watch {found.id}` follows it)"
        if is_under_way
        else f"{found.id} is {state}"
    )
    return 0


def clone(options: Namespace) -> int:
    """Submits a changed copy of an experiment."""
    patch = read_document(Path(options.patch)) if options.patch else {}
    with Client() as client:
        found = client.clone_experiment(options.id, patch)
    if options.json:
        return print_json(found)
    print(found.id)
    return 0


def diff(options: Namespace) -> int:
    """Shows what differs between two experiments."""
    with Client() as client:
        found = list(client.diff_experiments(options.before, options.after))
    if options.json:
        return print_json(found)
    rows = [[change.pointer, json.dumps(change.before), json.dumps(change.after)] for change in found]
    return print_table(["place", "before", "after"], rows)


def logs(options: Namespace) -> int:
    """Prints the output of a run."""
    with Client() as client:
        run_id = run_of(client, options.id)
        for chunk in client.follow_logs(run_id) if options.follow else client.logs(run_id):
            sys.stdout.write(safe(chunk.text))
            sys.stdout.flush()
    return 0


def run_of(client: Client, identifier: str) -> str:
    """The id of a run, also of a job with one run.

    Raises:
        UsageError: it names something else.
    """
    found = client.show(identifier)
    if isinstance(found, schemas.RunRead):
        return found.id
    if not isinstance(found, schemas.JobRead):
        raise UsageError(f"{identifier} has no log: name a run, or a job with one run")
    if len(found.runs) != 1:
        runs = "\n".join(f"  {run.id}  seed {run.seed}, {run.state}" for run in found.runs)
        raise UsageError(f"{identifier} has {len(found.runs)} runs, name one:\n{runs}")
    return found.runs[0].id


def results(options: Namespace) -> int:
    """Prints the table of results."""
    with Client() as client:
        experiment = options.experiment
        if experiment is None and options.job is None:
            newest = next(client.experiments(), None)
            if newest is None:
                raise UsageError("there is no experiment yet; submit one, or name a job with --job")
            experiment = newest.id
        if options.format:
            if experiment is None:
                raise UsageError("--format prints the table of an experiment")
            print(client.printed_table(experiment, options.format, metric=options.metric, baseline=options.baseline))
            return 0
        table = client.results_table(experiment=experiment, job=options.job)
    return print_json(table) if options.json else print_results(table)


def compare(options: Namespace) -> int:
    """Compares the methods of an experiment with one of them, or runs and checkpoints side by side."""
    if len(options.ids) > 1:
        return _compare_runs(options)
    if options.baseline is None:
        raise UsageError("an experiment is compared with --baseline METHOD; runs and checkpoints are compared in twos")
    filters = {"metric": options.metric}
    with Client() as client:
        found = list(client.comparisons(options.ids[0], options.baseline, **filters))
    if options.json:
        return print_json(found)
    if not found:
        told = "no other method was measured in the configuration in which the baseline was; `lco results` shows each"
        print(f"lco: {told}", file=sys.stderr)
    rows = []
    for one in found:
        interval = (
            f"{figure(one.interval.low, one.unit, 2)} to {figure(one.interval.high, one.unit, 2)}"
            if one.interval
            else ""
        )
        over = one.examples
        examples = f"{over.num_wins} / {over.num_losses} / {over.num_ties}" if over else ""
        what = [one.method, one.benchmark, one.metric, one.decoding]
        p_values = [_p_value(one.t_p), _p_value(one.adjusted_p), _p_value(over.mcnemar_p if over else None)]
        rows.append(
            [*what, figure(one.mean, one.unit, 2), interval, len(one.seeds), *p_values[:2], examples, p_values[2]]
        )
    head = ["method", "benchmark", "metric", "decoding", "difference %", "95 %", "n", "p", "p adjusted"]
    return print_table([*head, "better / worse / equal", "p over examples"], rows)


def _compare_runs(options: Namespace) -> int:
    with Client() as client:
        found = client.compare(options.ids)
    if options.json:
        return print_json(found)
    rows: list[list[object]] = [[one.pointer, *(_cell(value) for value in one.values)] for one in found.configuration]
    for result in found.results:
        name = f"{result.benchmark} {result.metric} {result.decoding}"
        rows.append([name, *(figure(value, result.unit, 2) for value in result.values)])
    rows += [
        [metric.key, *("" if value is None else f"{value:.6g}" for value in metric.values)]
        for metric in found.metrics
        if options.metric in (None, metric.key)
    ]
    return print_table(["", *(one.label for one in found.subjects)], rows)


def _cell(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _p_value(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def print_results(table: result_schemas.ResultsTable) -> int:
    """Prints a table of results, rates in percent."""
    labels = column_labels(table.rows)
    has_published = any(row.published for row in table.rows)
    rows = []
    for row in table.rows:
        label = labels[row.benchmark, row.decoding, row.configuration]
        mean, std = figure(row.mean, row.unit, 2), figure(row.std, row.unit, 2)
        missing = ",".join(map(str, row.missing_seeds))
        others = [printed(row.published, row.unit).strip("[]")] if has_published else []
        rows.append([row.method, row.benchmark, row.metric, label, mean, std, row.n, missing, *others])
    head = ["method", "benchmark", "metric", "decoding", "mean %", "± std", "n", "missing"]
    return print_table([*head, "published"] if has_published else head, rows)
