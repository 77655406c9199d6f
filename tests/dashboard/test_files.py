"""Templates and static files: nothing inline, nothing from elsewhere, vendored files as stated."""

import hashlib
import re
from pathlib import Path

import pytest

import api.dashboard.pages as pages

TEMPLATES = Path(pages.__file__).parent / "templates"
OUR_SCRIPTS = sorted((pages.STATIC / "js").glob("*.js"))
VENDOR = pages.STATIC / "vendor"


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.name)
def test_templates_hold_nothing_inline(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle\s*=|<style|\son[a-z]+\s*=|javascript:|hx-on|hx-vals|srcdoc", text, re.IGNORECASE)
    assert all("src=" in script for script in re.findall(r"<script[^>]*>", text))
    assert not re.search(r"\|\s*safe|autoescape|Markup", text)
    assert not re.search(r"(src|href|action)\s*=\s*[\"'](https?:)?//", text)


@pytest.mark.parametrize("path", OUR_SCRIPTS, ids=lambda path: path.name)
def test_scripts_write_text_and_never_markup(path: Path) -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|DOMParser|localStorage|https?://"
    assert not re.search(sinks, path.read_text())


def test_vendored_files_are_those_that_their_readme_states() -> None:
    stated = dict(
        re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.MULTILINE)
    )
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    found.pop("README.md")
    assert found == stated


def test_scripts_are_small_and_hand_written() -> None:
    assert OUR_SCRIPTS
    assert sum(len(path.read_text().splitlines()) for path in OUR_SCRIPTS) < 1200
