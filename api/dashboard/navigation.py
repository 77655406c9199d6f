"""The navigation: one list of sections, of which the pages show those that the application serves."""

from dataclasses import dataclass
from typing import Any

from fastapi.routing import iter_route_contexts


@dataclass(frozen=True, slots=True)
class Section:
    """An entry of the navigation."""

    path: str
    label: str
    parts: tuple[str, ...] = ()
    """First segments of further addresses that belong to it."""


SECTIONS = (
    Section("/", "Overview"),
    Section("/experiments", "Experiments"),
    Section("/jobs", "Jobs", ("runs", "compare")),
    Section("/results", "Results", ("scores",)),
    Section("/checkpoints", "Checkpoints", ("sample",)),
    Section("/datasets", "Data sets"),
    Section("/benchmarks", "Benchmarks", ("suites", "gates", "verdicts")),
    Section("/schedules", "Schedules"),
    Section("/workers", "Workers"),
    Section("/settings", "Settings", ("keys", "webhooks", "projects")),
    Section("/docs", "API"),
)
"""In the order in which they are shown."""


def sections(app: Any) -> tuple[Section, ...]:
    """The sections that an application has a page for."""
    known: tuple[Section, ...] | None = getattr(app.state, "sections", None)
    if known is None:
        served = {
            context.path
            for context in iter_route_contexts(app.routes)
            if "GET" in (getattr(context.original_route, "methods", None) or ())
        }
        known = app.state.sections = tuple(section for section in SECTIONS if section.path in served)
    return known


SETTINGS = (
    Section("/settings", "Keys"),
    Section("/settings/projects", "Projects"),
    Section("/settings/usage", "Disk"),
    Section("/settings/webhooks", "Alerts"),
    Section("/settings/audit", "Audit log"),
)
"""The parts of the settings, in the order of their tabs."""


def section_of(path: str) -> str:
    """The path of the section that an address belongs to."""
    first = path.split("/")[1]
    return next((section.path for section in SECTIONS if first in section.parts), f"/{first}")
