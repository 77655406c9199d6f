"""`lco rollouts`."""

import itertools
from argparse import Namespace

from api.client import Client
from api.commands.jobs import run_of
from api.commands.tables import print_json, safe
from api.rollout_schemas import RolloutRead


def rollouts(options: Namespace) -> int:
    """Prints rollouts of a training run, newest first."""
    with Client() as client:
        found = client.rollouts(run_of(client, options.id), iteration=options.iteration, order="desc")
        some = list(itertools.islice(found, options.limit))
    if options.json:
        return print_json(some)
    if not some:
        print("(none)")
    for one in some:
        print(_head(one))
        print(_indented("prompt", one.prompt))
        print(_indented("completion", one.completion))
    return 0


def _head(one: RolloutRead) -> str:
    parts = "".join(f", {name} {_number(value)}" for name, value in one.parts.items())
    end = ", truncated" if one.is_truncated else ""
    reference = f", reference {one.reference}" if one.reference else ""
    return safe(
        f"iteration {one.iteration}, completion {one.position}: reward {_number(one.reward)}{parts}, "
        f"{one.num_tokens} tokens{end}{reference}"
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def _indented(name: str, text: str) -> str:
    lines = safe(text).splitlines() or [""]
    return "\n".join(f"  {name if number == 0 else '':<11}{line}" for number, line in enumerate(lines))
