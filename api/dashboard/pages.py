"""Pages: the environment of the templates, and what every page is given."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.dashboard import words
from api.dashboard.navigation import SETTINGS, section_of, sections
from api.errors import Problem
from store.disk import disk_of
from store.states import TERMINAL, Desired, RunState

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
"""Files served at `/static`."""
REFRESH_SECONDS = 2
"""Time between two refreshes of a page on which something may happen."""
SLOW_REFRESH_SECONDS = 5
"""The same for lists."""
_MANY_RUNS = 100


@dataclass(frozen=True, slots=True)
class Twin:
    """What a page shows, as JSON."""

    label: str
    href: str


@cache
def static(name: str) -> str:
    """The address of a static file, with a hash of its content: a new version is a new address."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()
    return f"/static/{name}?v={digest[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    environment.globals.update(static=static, twin="", twins=[], every=0, names={}, known_metrics=words.notes())
    return environment


def page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """A rendered page.

    Args:
        context: what the template reads; `twin` is the address of the same as JSON (`twins` where it takes several),
            `every` the seconds between two refreshes, 0 for none.
    """
    query = request.scope["query_string"].decode("latin-1")
    path = request.scope["path"]
    given = {
        "principal": getattr(request.state, "principal", None),
        "address": f"{path}?{query}" if query else path,
        "here": section_of(path),
        "sections": sections(request.app),
        "settings_tabs": [(tab, tab.path == path) for tab in SETTINGS],
        "disk": disk_of(request.app.state.settings),
        **context,
    }
    text = _environment().get_template(template).render(given)
    return Response(text, status, {"Cache-Control": "no-store"}, "text/html; charset=utf-8")


def error_page(request: Request, problem: Problem) -> Response:
    """A problem as a page."""
    return page(request, "error.html", problem.status, problem=problem)


def controls(runs: Sequence[Any]) -> Mapping[str, bool]:
    """Which of cancel, pause, resume and delete would change something, given the runs' states and wishes."""
    active = [run for run in runs if run.state not in TERMINAL]
    return {
        "cancel": any(run.desired != Desired.CANCEL for run in active),
        "pause": any(run.desired == Desired.RUN and run.state != RunState.PAUSED for run in active),
        "delete": not active,
        "resume": any(
            not run.is_held and (run.desired == Desired.PAUSE or run.state == RunState.PAUSED) for run in active
        ),
    }


def every(runs: Sequence[Any]) -> int:
    """Seconds between two refreshes: more where a page is large, none once every run has ended."""
    if all(run.state in TERMINAL for run in runs):
        return 0
    return REFRESH_SECONDS if len(runs) <= _MANY_RUNS else SLOW_REFRESH_SECONDS
