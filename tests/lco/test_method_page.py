"""`docs/method.md` against the code: what it names exists, and its defaults are the defaults."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from lco.advantage_config import DpoAdvantage
from lco.algorithms import LcoKld, LcoLch, LcoMse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text()


def test_every_test_that_the_page_names_exists():
    defined = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 25
    assert not named - defined


def test_every_function_that_the_page_names_exists():
    modules = {path.stem for path in (ROOT / "lco").glob("*.py")}
    named = [(module, name) for module, name in re.findall(r"`(\w+)\.(\w+)`", PAGE) if module in modules]
    assert len(named) > 15
    for module, name in named:
        assert hasattr(importlib.import_module(f"lco.{module}"), name), f"{module}.{name}"


def _rows():
    """Rows of the table of equations: number or lemma, what it is, names of functions, names of tests."""
    found = []
    for line in PAGE.partition("## Equations")[2].partition("## ")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 7 and (functions := re.findall(r"`\w+\.(\w+)`", cells[3])):
            found.append((cells[1].rstrip(" *"), cells[2], functions, re.findall(r"`(test_\w+)`", cells[4])))
    return found


ROWS = pytest.mark.parametrize(("title", "what", "functions", "tests"), _rows(), ids=[row[0] for row in _rows()])
BODIES = {
    node.name: ast.unparse(node)
    for path in Path(__file__).parent.glob("test_*.py")
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
}


@ROWS
def test_every_test_of_a_row_is_about_one_of_its_functions(title, what, functions, tests):
    """It names one, or the algorithm of one, or reads the table of losses or the numbers of `lco.analysis.theory`."""
    known = {*functions, *(name.replace("_", "-") for name in functions), "LOSSES", "numbers"}
    assert tests
    for test in tests:
        text = BODIES[test]
        assert any(re.search(rf"(?:\b|_){re.escape(name)}\b", text) for name in known), f"{test}: none of {functions}"


@ROWS
def test_a_test_of_every_row_has_the_rows_number_in_its_name(title, what, functions, tests):
    if title.startswith("Lemma"):
        words = {title.lower().replace(" ", "_").replace(".", "_"), "convex"}
    else:
        first, _, last = title.partition("-")
        words = {f"eq{number}_" for number in range(int(first), int(last or first) + 1)} | {"hessians_are_those_of_the"}
        words |= {f"proposition_4_{number}_" for number in re.findall(r"Proposition 4\.(\d)", what)}
    assert any(word in test for word in words for test in tests), f"none of {sorted(words)} in {tests}"


def test_every_equation_of_the_losses_and_advantages_has_a_row():
    cited = set(
        re.findall(r"\(Eq\. (\d+)\)", "".join((ROOT / "lco" / f"{n}.py").read_text() for n in ("losses", "advantages")))
    )
    rows = set(re.findall(r"^\| (\d+)", PAGE, re.M))
    assert cited and cited <= rows


def test_the_defaults_of_the_page_are_the_defaults():
    table = PAGE.partition("## Defaults")[2].partition("##")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.M))
    kld, logits = LcoKld.model_fields, LcoMse.model_fields
    assert {name: field.default for name, field in logits.items()} == {
        name: "lco-mse" if name == "name" else field.default for name, field in LcoLch.model_fields.items()
    }
    expected = {
        name: f"`{field.default}`" for name, field in (logits | kld).items() if name in shown and name != "support"
    }
    expected["reference_kl"] = f"`{DpoAdvantage.model_fields['reference_kl'].default}`"
    few = logits["support"].default
    top_k = f"`{few.name}` {few.k} of the `{few.source}`"
    expected["support"] = f"`{kld['support'].default.name}` for `lco-kld`, {top_k} for `lco-lch` and `lco-mse`"
    assert shown == expected


@pytest.mark.parametrize("config", [LcoKld, LcoLch, LcoMse])
def test_no_option_of_the_target_is_left_out_of_the_page(config):
    unexplained = {"name", "advantage", "gate_factor", "allow_uncentered"}
    assert all(f"| `{name}` |" in PAGE for name in config.model_fields if name not in unexplained)
