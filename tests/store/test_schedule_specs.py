"""When a schedule is due, above all where the clocks change."""

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from store.schedule_specs import CronTrigger, filled, newest_due, next_after

BERLIN = ZoneInfo("Europe/Berlin")


def cron(text, zone="Europe/Berlin"):
    return CronTrigger(kind="cron", expression=text, time_zone=zone)


def dues(trigger, start, end):
    """Every due time in a span, each found from the one before."""
    found = []
    moment = start
    while (moment := next_after(trigger, moment)) <= end:
        found.append(moment)
    return found


@pytest.mark.parametrize(
    ("day", "at"),
    [
        (datetime(2026, 3, 29), "2026-03-29T03:00:00+02:00"),  # 02:00 to 03:00 does not exist
        (datetime(2026, 10, 25), "2026-10-25T02:30:00+02:00"),  # 02:00 to 03:00 comes twice: the first one
        (datetime(2026, 6, 1), "2026-06-01T02:30:00+02:00"),
    ],
)
def test_a_daily_time_fires_exactly_once_on_each_day(day, at):
    start = day.replace(tzinfo=BERLIN) - timedelta(days=3)
    found = [due.astimezone(BERLIN) for due in dues(cron("30 2 * * *"), start, start + timedelta(days=7))]
    assert [due.date() for due in found] == [(start + timedelta(days=n)).date() for n in range(7)]
    assert next(due.isoformat() for due in found if due.date() == day.date()) == at


@pytest.mark.parametrize("day", [datetime(2026, 3, 29), datetime(2026, 10, 25)])
@pytest.mark.parametrize("text", ["30 2 * * *", "0 2,3 * * *", "*/20 * * * *", "15 * * * *", "0 */2 * * *"])
def test_from_every_moment_the_next_time_is_later_and_the_same_as_from_the_one_before(day, text):
    trigger = cron(text)
    start = day.replace(tzinfo=BERLIN).astimezone(UTC)
    known = dues(trigger, start - timedelta(hours=1), start + timedelta(hours=30))
    assert known == sorted(set(known))
    for minute in range(0, 24 * 60, 7):
        moment = start + timedelta(minutes=minute, seconds=3)
        assert next_after(trigger, moment) == next(due for due in known if due > moment)


def test_what_repeats_within_the_hour_goes_on_by_real_time_through_both_changes():
    for day in (datetime(2026, 3, 29), datetime(2026, 10, 25)):
        start = day.replace(tzinfo=BERLIN).astimezone(UTC)
        found = dues(cron("*/20 * * * *"), start, start + timedelta(hours=6))
        assert {later - earlier for earlier, later in itertools.pairwise(found)} == {timedelta(minutes=20)}


@pytest.mark.parametrize(
    ("text", "days_away"), [("* * * * *", 40), ("30 2 * * *", 40), ("0 5 1 * *", 200), ("0 0 29 2 *", 3000)]
)
def test_the_newest_missed_time_is_found_however_long_the_platform_was_away(text, days_away):
    trigger = cron(text)
    first = next_after(trigger, datetime(2020, 1, 1, tzinfo=UTC))
    moment = first + timedelta(days=days_away, seconds=7)
    newest = newest_due(trigger, first, moment)
    assert first <= newest <= moment
    assert next_after(trigger, newest) > moment


def test_a_time_that_comes_twice_is_the_newest_missed_one_also_in_its_second_hour():
    trigger = cron("30 2 * * *")
    moment = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    first = next_after(trigger, moment - timedelta(days=9))
    assert newest_due(trigger, first, moment) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* * 30 2 *", "R * * * *", "a b c d e", "*/0 * * * *"],
)
def test_what_is_no_cron_expression_is_refused(text):
    with pytest.raises(ValidationError, match="expression"):
        cron(text)


@pytest.mark.parametrize("zone", ["", "Europe/Atlantis", "../../etc/passwd", "/etc/passwd", "Europe", "CEST+1"])
def test_what_is_no_time_zone_is_refused(zone):
    with pytest.raises(ValidationError, match="IANA"):
        cron("0 0 * * *", zone)


def test_placeholders_are_filled_in_everywhere_and_others_stay():
    document = {"a": ["{found.model}", 1, None], "b": {"c": "x-{found.name}-{model}"}}
    assert filled(document, {"model": "model:m", "name": "m"}) == {"a": ["model:m", 1, None], "b": {"c": "x-m-{model}"}}
