"""Tests of the documentation against the code."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from api.cli import make_parser
from api.parsers.models import STAGES, TOOLS
from store.matrix import expand
from store.schedule_specs import JobAction, ScheduleSpec, job_of, sample_values
from store.search import check_search
from store.settings import Settings
from store.specs import ExperimentSpec
from store.suite_specs import SuiteSpec, whole_gates

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def settings_table() -> str:
    """The table of settings as `docs/operations.md` shows it."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in ("", Path()) else f"`{field.default}`"
        lines.append(f"| `LCO_{name.upper()}` | {default} | {' '.join((field.description or '').split())} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    shown = re.search(r"<!-- settings: .*? -->\n(.*?)\n?<!-- end of settings -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == settings_table(), f"docs/operations.md should say:\n{settings_table()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


def test_every_decision_is_listed() -> None:
    pages = {page.name for page in (ROOT / "docs" / "decisions").glob("*.md")} - {"README.md"}
    listed = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "docs" / "decisions" / "README.md").read_text()))
    assert pages == listed


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "DEVELOPERS.md"):
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
        assert named <= targets, page.name


def test_the_suite_of_the_documentation_is_valid() -> None:
    page = (ROOT / "docs" / "regression.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    spec = SuiteSpec.model_validate_json(json.dumps(tomllib.loads(text)))
    assert [gate.metric for gate in whole_gates(spec)] == ["pass@1"]


def test_the_experiments_of_the_documentation_are_valid_and_have_every_combination() -> None:
    page = (ROOT / "docs" / "experiment-documents.md").read_text()
    sweep, search = (
        ExperimentSpec.model_validate_json(json.dumps(expand(tomllib.loads(text)).document))
        for text in re.findall(r"```toml\n(.*?)```", page, re.S)
    )
    assert len(sweep.jobs) == 1 + 2 * 4
    assert {len(job.seeds) for job in sweep.jobs} == {4}
    assert len(search.jobs) == 2 * 16
    assert {tuple(rungs) for rungs in check_search(search).values()} == {(10, 30, 90)}


def test_the_schedules_of_the_documentation_are_valid() -> None:
    page = (ROOT / "docs" / "schedules-and-alerts.md").read_text()
    found = [ScheduleSpec.model_validate(tomllib.loads(text)) for text in re.findall(r"```toml\n(.*?)```", page, re.S)]
    assert [spec.name for spec in found] == ["nightly", "nightly-gate", "judge-deliveries", "judge-upstream"]
    watcher = found[2]
    assert isinstance(watcher.action, JobAction)
    assert job_of(watcher.action, sample_values(watcher.trigger)).name == "judge-delivery"


def commands(page: Path) -> dict[str, bool]:
    """The `lco` commands that a page shows -> whether each is whole: a line of a code block, not part of a sentence."""
    text = page.read_text()
    within = re.findall(r"`(?:\.venv/bin/)?(lco [a-z-]+[^`\n]*)`", text)
    lines = re.findall(r"^(?: {4})?(?:[a-z]+=\$\()?(?:\.venv/bin/)?(lco [a-z-].*)$", text, re.MULTILINE)
    return dict.fromkeys(within, False) | dict.fromkeys(lines, True)


SHOWN = [
    pytest.param(line, is_whole, id=f"{page.relative_to(ROOT)}: {line[:60]}")
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for line, is_whole in commands(page).items()
]


@pytest.mark.parametrize(("line", "is_whole"), SHOWN)
def test_every_command_that_the_documentation_shows_is_one(
    line: str, is_whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.split(r"\s(?:#|\||&&|>|2>)|[);]", line)[0]
    words = shlex.split(text, posix=True)[1:] if text.count('"') % 2 == 0 else text.split()[1:]
    is_of_runs = words[0] == "compare" and words[1:] and not words[1].startswith(("EXP", "$experiment"))
    if words[0] in (*STAGES, *TOOLS, "analyze") or is_of_runs:
        return  # programs of their own, which read their arguments themselves
    try:
        make_parser().parse_args(words)
    except SystemExit as ended:
        error = capsys.readouterr().err
        is_name = not is_whole and "arguments are required" in error  # in a sentence, a command without what it takes
        assert ended.code == 0 or is_name, error


def test_the_commands_of_the_documentation_are_found() -> None:
    assert len(SHOWN) > 60
