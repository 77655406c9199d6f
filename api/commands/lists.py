"""`lco benchmarks` and `lco scores`."""

import itertools
from argparse import Namespace

from api.client import Client
from api.commands.tables import print_json, print_table


def list_benchmarks(options: Namespace) -> int:
    """Lists the benchmarks."""
    with Client() as client:
        found = list(client.benchmarks())
    if options.json:
        return print_json(found)
    rows = [[one.id, ", ".join(one.metrics), one.description.partition("\n")[0]] for one in found]
    return print_table(["benchmark", "metrics", "what it is"], rows)


def list_scores(options: Namespace) -> int:
    """Lists score jobs with their first figures."""
    with Client() as client:
        found = list(itertools.islice(client.scores(), options.limit))
    if options.json:
        return print_json(found)
    rows = [[one.id, one.name, one.scoring, one.status, _figures(one.figures), one.created_at] for one in found]
    return print_table(["id", "name", "scoring", "status", "figures", "created"], rows)


def _figures(figures: dict[str, object] | None) -> str:
    """The plain numbers among the figures."""
    numbers = {name: value for name, value in (figures or {}).items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
