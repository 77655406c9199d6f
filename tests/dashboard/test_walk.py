"""Every page in a real Chromium: no error, no refusal by the policy, accessible in light and dark, never too wide.

The pages are the application's own routes; `filling.py` says what their parameters are.
"""

import json
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from fastapi.routing import APIRoute, iter_route_contexts

from tests.dashboard.browser import Served, Tab

WIDTHS = (1440, 800, 400)
_PARTS = 5
"""Tests that share the pages among them, so that each keeps to the time of one."""
_AXE = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "resultTypes": ["violations"],
    "rules": {"color-contrast-enhanced": {"enabled": False}},
}
_THIN = "document.querySelectorAll('.reference > :nth-child(n + 20)').forEach((one) => one.remove())"
"""The reference of the API has hundreds of panels alike, over which axe would take a minute."""
_OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const scrolls = (one) => getComputedStyle(one).overflowX !== "visible";
  const isClipped = (one) => one.parentElement && (scrolls(one.parentElement) || isClipped(one.parentElement));
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > width + 1 && !isClipped(one))
    .map((one) => `${one.tagName}.${one.className} "${one.textContent.trim().slice(0, 40)}"`).slice(0, 5);
}"""


def page_routes(app: Any) -> list[str]:
    """The paths of every page: what the dashboard answers to GET."""
    found = [
        context.path
        for context in iter_route_contexts(app.routes)
        if isinstance(context.original_route, APIRoute)
        and context.original_route.endpoint.__module__.startswith("api.dashboard")
        and "GET" in context.original_route.methods
    ]
    return list(dict.fromkeys(found))


def violations(tab: Tab, scheme: str) -> list[str]:
    """What axe finds in the page as it is shown now."""
    found = tab.page.evaluate(f"axe.run(document, {json.dumps(_AXE)})")["violations"]
    return [
        f"{scheme} {one['id']}: {node['html'][:160]} {'; '.join(check['message'] for check in node['any'][:1])}"
        for one in found
        for node in one["nodes"][:3]
    ]


def faults(tab: Tab, path: str) -> list[str]:
    """Everything that is wrong with a page."""
    page = tab.page
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    tab.open(path)
    found = list(tab.wrongs())
    page.evaluate(AXE_SCRIPT)
    for scheme, widths in (("light", WIDTHS[:1]), ("dark", WIDTHS[1:])):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                found.append(f"too wide at {width}: {page.evaluate(_OVERFLOW)}")
        page.evaluate(_THIN)
        found += violations(tab, f"{scheme}, {widths[-1]} px:")
    return [f"{path}: {one}" for one in dict.fromkeys([*found, *tab.wrongs()])]


@pytest.mark.timeout(300)  # also where the machine does much else
@pytest.mark.parametrize("part", range(_PARTS))
def test_every_page_is_sound(served: Served, tab: Tab, part: int) -> None:
    paths = served.filled.addresses(page_routes(served.app))[part::_PARTS]
    assert paths
    found = [fault for path in paths for fault in faults(tab, path)]
    tab.complaints.clear()
    assert not found, "\n".join(found)


def test_a_page_that_does_not_exist_is_sound_too(served: Served, tab: Tab) -> None:
    found = [fault for fault in faults(tab, "/nowhere") if "404" not in fault]  # the browser's own word of it
    tab.complaints.clear()
    assert not found, "\n".join(found)
