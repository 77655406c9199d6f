"""`lco search show`."""

import json
from argparse import Namespace

from api.client import Client
from api.commands.tables import print_json, print_table


def show(options: Namespace) -> int:
    """Prints the trials of a search, the best first."""
    with Client() as client:
        found = client.search(options.id)
    if options.json:
        return print_json(found)
    names = list(found.space)
    sign = -1.0 if found.goal == "max" else 1.0
    trials = sorted(
        found.trials,
        key=lambda one: (one.arm, -len(one.values), one.value is None, sign * (one.value or 0.0)),
    )
    rows = [
        [
            *([trial.arm] if found.equal_budget_over else []),
            trial.trial,
            *(
                value if isinstance(value := trial.parameters[name], str | int | float) else json.dumps(value)
                for name in names
            ),
            f"{trial.rung}/{trial.num_rungs}",
            "" if trial.value is None else f"{trial.value:.4g}",
            "best" if trial.is_best else "",
            trial.state,
            trial.reason.removeprefix("stopped by the search "),
        ]
        for trial in trials
    ]
    arm = [found.equal_budget_over] if found.equal_budget_over else []
    return print_table([*arm, "trial", *names, "rung", found.metric, "", "state", "why"], rows)
