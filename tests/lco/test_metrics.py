"""The table of metrics: what runs report is in it, and docs and dashboard show what it says."""

import re
from pathlib import Path

from api.dashboard import words
from lco.metrics import GROUPS, METRICS

ROOT = Path(__file__).parents[2]


def metrics_table() -> str:
    """The table of `docs/diagnostics.md`."""
    lines = ["| name | what it is | in TRL; verl | reported |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {m.formula} | {m.peers} | {m.scope} |" for name, m in METRICS.items()]
    return "\n".join(lines)


def test_the_table_of_metrics_is_what_the_code_says():
    page = (ROOT / "docs" / "diagnostics.md").read_text()
    shown = re.search(r"<!-- metrics: .*? -->\n(.*?)\n?<!-- end of metrics -->", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == metrics_table(), f"docs/diagnostics.md should say:\n{metrics_table()}"


def test_titles_are_short_and_each_its_own():
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
    assert all(len(title) <= 40 for title in titles)


def test_the_dashboards_script_has_the_titles_in_this_order():
    script = (ROOT / "api/dashboard/static/js/words.js").read_text().partition("const TITLES")[2].partition("]);")[0]
    assert re.findall(r'\["([^"]+)", "([^"]+)"\]', script) == [(name, m.title) for name, m in METRICS.items()]
    assert [
        reading.title for reading in words.readings({"train/kl_target": 1.0, "train/loss": 2.0, "train/other": 3.0})
    ] == [
        "Loss",
        "KL to target",
        "train/other",
    ]


def test_every_metric_stands_under_one_heading():
    headed = [key for keys in GROUPS.values() for key in keys]
    assert sorted(headed) == sorted(METRICS), "lco/metrics.py: GROUPS names each metric once"
