"""`lco doctor`: looks at everything that an installation needs, and says what to do about what is wrong."""

import json
from argparse import Namespace
from collections.abc import Iterator

from api.commands.tables import is_terminal, safe
from api.doctor import machine, services
from api.doctor.findings import Check, Finding, broken
from store.settings import Settings

CHECKS: dict[str, Check] = {
    "python": machine.python,
    "torch": machine.torch,
    "grader": machine.grader,
    "disk space": machine.disk,
    "disk speed": machine.fsync,
    "permissions": machine.permissions,
    "database": services.database,
    "clock": services.clock,
    "broker": services.broker,
    "artifacts": services.artifacts,
    "object store": services.store,
    "api": services.api,
    "endpoints": services.endpoints,
    "extras": machine.extras,
    "hub": machine.hub,
}
"""In the order in which they are shown."""
_MARKS = {"ok": "ok     ", "warning": "warning", "broken": "BROKEN ", "skipped": "-      "}
_COLORS = {"ok": "32", "warning": "33", "broken": "31;1", "skipped": "2"}


def doctor(options: Namespace) -> int:
    """Checks the installation; 1 where something is broken."""
    settings = Settings.from_environment()  # a wrong one is told by the command line itself
    found = {}
    for name, finding in _examine(settings):
        found[name] = finding
        if not options.json:
            _print(name, finding)
    num_broken = sum(finding.state == "broken" for finding in found.values())
    if options.json:
        rows = [
            {"check": name, "state": finding.state, "found": finding.found, "cure": finding.cure}
            for name, finding in found.items()
        ]
        print(json.dumps({"healthy": not num_broken, "checks": rows}, indent=2))
    else:
        print(f"\n{num_broken} broken" if num_broken else "\nnothing is broken")
    return 1 if num_broken else 0


def _examine(settings: Settings) -> Iterator[tuple[str, Finding]]:
    for name, check in CHECKS.items():
        try:
            yield name, check(settings)
        except Exception as error:  # a check that fails is a finding, and the others go on
            yield name, broken(f"the check itself failed: {type(error).__name__}: {error}", "report this, please")


def _print(name: str, finding: Finding) -> None:
    mark = _MARKS[finding.state]
    if is_terminal():
        mark = f"\x1b[{_COLORS[finding.state]}m{mark}\x1b[0m"
    print(f"{mark}  {name:<12} {safe(finding.found)}", flush=True)
    if finding.cure:
        print(f"{'':<9}{'':<12} -> {safe(finding.cure)}", flush=True)
