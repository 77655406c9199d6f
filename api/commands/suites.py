"""`lco suites` and `lco regress`: through the client, over HTTP."""

import itertools
import sys
from argparse import Namespace
from pathlib import Path

from api import suite_schemas as schemas
from api.client import Client
from api.commands.documents import read_document
from api.commands.tables import print_json, print_table, safe
from api.figures import figure
from api.transport import ApiFailure

REGRESSED, INCONCLUSIVE, UNDECIDED = 1, 3, 4
"""Exit codes of `lco regress`; 2 is wrong usage, as everywhere."""
_EXIT_CODES = {"pass": 0, "improved": 0, "regressed": REGRESSED, "inconclusive": INCONCLUSIVE}


def create(options: Namespace) -> int:
    """Creates a suite."""
    document = read_document(Path(options.file))
    with Client() as client:
        found = client.create_suite(document)
    if options.json:
        return print_json(found)
    print(found.id)
    return 0


def list_suites(options: Namespace) -> int:
    """Lists suites."""
    with Client() as client:
        found = list(itertools.islice(client.suites(archived=options.archived), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [suite.name, suite.id, suite.version, suite.baseline, len(suite.gates), _counted(suite.counts)]
        for suite in found
    ]
    return print_table(["name", "id", "version", "baseline", "gates", "verdicts"], rows)


def _counted(counts: schemas.VerdictCounts) -> str:
    told = {**counts.model_dump(), "passed": counts.passed}
    return ", ".join(f"{count} {name}" for name, count in told.items() if count)


def show(options: Namespace) -> int:
    """Shows the gates of a suite and the newest values of their metrics."""
    with Client() as client:
        found = client.suite(options.suite)
        history = client.suite_history(found.id, limit=10)
    if options.json:
        return print_json(found)
    archived = ", archived" if found.archived_at else ""
    print(safe(f"{found.name} ({found.id}), version {found.version}{archived}, against {found.baseline}"))
    if found.description:
        print(safe(found.description))
    print()
    series = {(one.benchmark, one.metric, one.decoding): one for one in history.series}
    rows = []
    for gate in found.gates:
        one = series.get((gate.benchmark, gate.metric, gate.decoding))
        values = [figure(point.value, gate.unit) for point in one.points] if one else []
        floor, drop = figure(gate.min_value, gate.unit), figure(gate.max_drop, gate.unit)
        rows.append([gate.benchmark, gate.metric, gate.decoding, floor, drop, "  ".join(values)])
    return print_table(["benchmark", "metric", "decoding", "floor", "largest drop", "newest values"], rows)


def update(options: Namespace) -> int:
    """Changes a suite."""
    patch = read_document(Path(options.file))
    with Client() as client:
        found = client.update_suite(options.suite, patch)
    if options.json:
        return print_json(found)
    print(safe(f"{found.name} is at version {found.version}"))
    return 0


def archive(options: Namespace) -> int:
    """Takes a suite out of use."""
    with Client() as client:
        print(safe(f"{client.archive_suite(options.suite).name} is archived"))
    return 0


def restore(options: Namespace) -> int:
    """Takes it into use again."""
    with Client() as client:
        print(safe(f"{client.restore_suite(options.suite).name} is in use"))
    return 0


def list_verdicts(options: Namespace) -> int:
    """Lists verdicts."""
    with Client() as client:
        suite = client.suite(options.suite).id if options.suite else None
        found = list(itertools.islice(client.verdicts(suite=suite, outcome=options.outcome), options.limit))
    if options.json:
        return print_json(found)
    rows = [
        [one.id, one.suite_name, one.version, one.checkpoint_name, one.outcome or one.state, one.cause, one.created_at]
        for one in found
    ]
    return print_table(["id", "suite", "version", "checkpoint", "verdict", "cause", "asked"], rows)


def show_verdict(options: Namespace) -> int:
    """Shows the numbers of a verdict."""
    with Client() as client:
        found = client.verdict(options.id)
    if options.json:
        return print_json(found)
    print_verdict(found)
    return 0


def retry(options: Namespace) -> int:
    """Tries a verdict again."""
    with Client() as client:
        print(f"{client.retry_verdict(options.id).id} is pending")
    return 0


def regress(options: Namespace) -> int:
    """Judges a checkpoint; the exit code says how, see docs/regression.md."""
    try:
        with Client() as client:
            found = client.request_verdict(options.suite, options.checkpoint, cause=options.cause)
            if options.no_wait:
                print(found.id)
                return 0
            if found.state not in ("decided", "error"):
                print(f"{found.id} waits for its evaluations ...", file=sys.stderr, flush=True)
                found = client.wait_verdict(found.id, timeout_seconds=options.timeout)
    except (ApiFailure, TimeoutError) as error:  # no answer is no regression: CI can tell them apart
        print(safe(f"lco: {error}"), file=sys.stderr)
        return UNDECIDED
    if options.json:
        print_json(found)
    else:
        print_verdict(found)
    return UNDECIDED if found.outcome is None else _EXIT_CODES[found.outcome]


def print_verdict(found: schemas.VerdictRead) -> None:
    """A verdict for a person: what decided it, and a line for each gate."""
    print(
        safe(f"{found.outcome or found.state}: {found.suite_name} version {found.version} on {found.checkpoint_name}")
    )
    print(safe(f"{found.id}, {found.checkpoint_id} against {found.baseline_id or 'no baseline'} {found.baseline_name}"))
    if found.reason:
        print(safe(found.reason))
    if found.promoted_alias:
        print(safe(f"the checkpoint is alias:{found.promoted_alias} now"))
    elif found.promotion_note:
        print(safe(f"not promoted: {found.promotion_note}"))
    if not found.gates:
        return
    print()
    rows = []
    for gate in found.gates:
        bounds = f"{_signed(gate.low, gate)} to {_signed(gate.high, gate)}" if gate.low is not None else ""
        rows.append(
            [
                f"{gate.benchmark} {gate.metric} {gate.decoding}",
                gate.outcome,
                figure(gate.value, gate.unit),
                figure(gate.baseline_value, gate.unit),
                _signed(gate.difference, gate),
                bounds,
                figure(gate.min_value, gate.unit),
                figure(gate.max_drop, gate.unit),
                figure(gate.detectable_drop, gate.unit),
                f"{gate.num_wins}/{gate.num_losses}",
                gate.num_examples,
            ]
        )
    head = ["gate", "outcome", "value", "baseline", "difference", f"bounds at {1 - found.level:.0%}", "floor"]
    print_table([*head, "largest drop", "detectable", "won/lost", "examples"], rows)


def _signed(value: float | None, gate: schemas.GateVerdict) -> str:
    return "" if value is None else f"{'+' if value >= 0 else ''}{figure(value, gate.unit)}"
