"""Pages of suites and verdicts: what they say, where they lead, and the drawing of a history."""

from datetime import UTC, datetime

import pytest

from api.dashboard.timeline import HEIGHT, WIDTH, round_values, timeline
from api.suite_schemas import HistoryPoint, HistorySeries
from tests.dashboard.judging import SHARES
from tests.dashboard.test_pages import get


def point(number, value=0.5, **changes):
    fields = {
        "verdict_id": f"vrd_{number}",
        "version": 1,
        "checkpoint_id": f"ckpt_{number}",
        "checkpoint_name": f"sft, step {number}",
        "checkpoint_created_at": datetime(2026, 11, 1 + number, tzinfo=UTC),
        "outcome": "pass",
        "value": value,
        "stderr": 0.02,
        "baseline_id": "ckpt_base",
        "baseline_value": 0.5,
        "baseline_low": 0.46,
        "baseline_high": 0.54,
        "min_value": 0.3,
        "max_drop": 0.1,
    }
    return HistoryPoint(**(fields | changes))


def series(*points):
    return HistorySeries(benchmark="sums", metric="pass@1", decoding="greedy", unit="fraction", points=list(points))


def test_a_suite_draws_a_point_for_each_checkpoint_and_gate(site, filled):
    site.sign_in()
    page = get(site, f"/benchmarks/{filled.suite}")
    drawn = [link for link in page.attributes("a", "href") if link and link.startswith("/verdicts/vrd_")]
    assert len(drawn) == 2 * len(SHARES) + len(SHARES) + 3  # two charts, and the table of verdicts
    assert page.attributes("polygon", "points")
    assert page.attributes("form", "action")[-1] == f"/v1/suites/{filled.suite}/verdicts"
    only = get(site, f"/benchmarks/{filled.suite}?outcome=regressed")
    assert [link for link in only.attributes("a", "href") if link in drawn[2 * len(SHARES) :]]
    assert len(only.attributes("tr", "class")) <= len(page.attributes("tr", "class"))


def test_a_verdict_leads_to_the_examples_that_flipped(site, filled):
    site.sign_in()
    pages = [get(site, f"/verdicts/{verdict}") for verdict in filled.verdicts]
    first, second = filled.runs["measure-sft", 0], filled.runs["measure-lco", 0]
    flipped = f"/runs/{first}/against/{second}?change=lost"
    assert any(flipped in page.attributes("a", "href") for page in pages)
    assert site.client.get(flipped).status_code == 200
    assert [page.attributes("main", "data-every") for page in pages].count(["2"]) == 2  # pending and running
    assert sum("Try again" in page.text for page in pages) == 1


def test_a_reader_is_offered_nothing_that_changes_anything(site, filled):
    site.sign_in(site.new_key("read"))
    page = get(site, f"/benchmarks/{filled.suite}")
    assert not page.attributes("button", "data-post")
    assert f"/v1/suites/{filled.suite}/verdicts" not in page.attributes("form", "action")
    assert "Try again" not in get(site, f"/verdicts/{filled.verdicts[-1]}").text


def test_the_overview_shows_suites_in_use_and_archived_ones_apart(site, filled):
    site.sign_in()
    here = f"/benchmarks/{filled.suite}"
    assert here in get(site, "/benchmarks").attributes("a", "href")
    page = get(site, "/benchmarks?archived=true")
    assert "No suite is archived" in page.text


def test_the_line_goes_through_every_value_inside_the_drawing():
    drawn = timeline(series(point(0, 0.2), point(1, None), point(2, 0.8)))
    assert [dot.href for dot in drawn.dots] == ["/verdicts/vrd_0", "/verdicts/vrd_2"]
    assert drawn.dots[0].y > drawn.dots[1].y
    for dot in drawn.dots:
        assert 0 < dot.x < WIDTH
        assert 0 < dot.high < dot.y < dot.low < HEIGHT
    assert drawn.latest == "80.0"
    assert drawn.dots[1].text == "sft, step 2: 80.0, pass; baseline 50.0"


def test_a_new_baseline_or_version_begins_a_new_band():
    drawn = timeline(
        series(point(0), point(1), point(2, baseline_id="ckpt_other", baseline_low=None), point(3, version=2))
    )
    assert (len(drawn.bands), len(drawn.baselines), len(drawn.limits)) == (2, 3, 6)


def test_a_series_without_values_is_not_drawn():
    assert timeline(series(point(0, None))) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.43, 0.97, [0.6, 0.8]), (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (41.0, 44.0, [41, 42, 43, 44])],
)
def test_the_axis_has_round_values(low, high, expected):
    assert round_values(low, high) == pytest.approx(expected)
