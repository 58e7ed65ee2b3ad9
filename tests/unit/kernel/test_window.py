"""Windows: days, weeks and months of a time zone tile time, also where and when its clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mains.errors import UsageError
from mains.kernel.billing import Window
from mains.kernel.window import ALWAYS, Span, day_of, month, span, told
from mains.program import zone_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",  # UTC+5:45
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # its clock changes by half an hour
    "Pacific/Chatham",  # UTC+12:45, and it changes
    "Pacific/Kiritimati",  # UTC+14
    "Pacific/Pago_Pago",  # UTC-11
    "Africa/Cairo",  # these change at midnight
    "Asia/Beirut",
    "America/Havana",
    "America/Santiago",
    "America/Nuuk",
    "Atlantic/Azores",
    "America/Scoresbysund",
    "Africa/Casablanca",  # goes back for Ramadan
    "Antarctica/Troll",  # changes by two hours
)


def at(text: str) -> int:
    """A moment with its offset from UTC, in milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)


MOMENTS = st.integers(at("2024-01-01T00:00+00:00"), at("2037-12-31T00:00+00:00"))
KINDS = st.sampled_from(["day", "week", "month"])


@given(KINDS, st.sampled_from(ZONES), MOMENTS)
@example("day", "Africa/Cairo", at("2026-10-29T23:30+02:00"))  # the hour before midnight, for the second time
@example("day", "America/Havana", at("2026-11-01T00:30-05:00"))  # the hour after midnight, for the second time
@example("day", "Asia/Beirut", at("2026-03-29T01:00+03:00"))  # there was no midnight
@example("month", "Pacific/Kiritimati", at("2026-01-31T23:59+14:00"))
def test_spans_tile_time(kind: Window, zone: str, at_ms: int) -> None:
    here = span(kind, zone, at_ms)
    assert here.holds(at_ms), "a moment lies in its own span"
    assert span(kind, zone, here.start_ms) == here
    assert span(kind, zone, here.until_ms - 1) == here
    before, after = span(kind, zone, here.start_ms - 1), span(kind, zone, here.until_ms)
    assert (before.until_ms, after.start_ms) == (here.start_ms, here.until_ms), "no gap and no overlap"


@given(st.sampled_from(ZONES), MOMENTS)
def test_a_day_has_one_date_and_lies_in_one_week_and_one_month(zone: str, at_ms: int) -> None:
    day, week, whole = (span(kind, zone, at_ms) for kind in ("day", "week", "month"))
    assert day_of(day.start_ms, zone) == day_of(day.until_ms - 1, zone) == day_of(at_ms, zone)
    assert date.fromisoformat(day_of(week.start_ms, zone)).isoweekday() == 1
    assert day_of(whole.start_ms, zone).endswith("-01")
    for longer in (week, whole):
        assert longer.start_ms <= day.start_ms < day.until_ms <= longer.until_ms
    assert 6 * DAY_MS < week.until_ms - week.start_ms < 8 * DAY_MS


@given(st.sampled_from(ZONES), MOMENTS, st.integers(0, 900_000))
def test_the_moment_is_judged_by_its_clock_and_not_by_the_one_asked_before(zone: str, at_ms: int, more: int) -> None:
    """Spans are kept for a quarter of an hour; a clock changes at such a boundary only."""
    span("day", zone, at_ms)
    assert day_of(span("day", zone, at_ms + more).start_ms, zone) == day_of(at_ms + more, zone)


@pytest.mark.parametrize(
    ("zone", "moment", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+01:00", 25),
        ("Europe/Berlin", "2026-11-24T12:00+01:00", 24),
        ("Africa/Cairo", "2026-04-24T12:00+03:00", 23),  # begins at 01:00
        ("Africa/Cairo", "2026-10-29T12:00+03:00", 25),  # ends an hour later
        ("Asia/Beirut", "2026-03-29T12:00+03:00", 23),
        ("Asia/Beirut", "2026-10-24T12:00+03:00", 25),
        ("America/Havana", "2026-03-08T12:00-04:00", 23),
        ("America/Havana", "2026-11-01T12:00-05:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00+10:30", 24.5),
        ("Australia/Lord_Howe", "2026-10-04T12:00+11:00", 23.5),
        ("Asia/Kathmandu", "2026-11-24T12:00+05:45", 24),
    ],
)
def test_a_day_is_as_long_as_its_clock_makes_it(zone: str, moment: str, hours: float) -> None:
    day = span("day", zone, at(moment))
    assert day.until_ms - day.start_ms == hours * HOUR_MS


def test_a_day_without_midnight_begins_when_its_clock_does() -> None:
    day = span("day", "Africa/Cairo", at("2026-04-24T12:00+03:00"))
    assert told(day.start_ms, "Africa/Cairo") == "2026-04-24T01:00:00+03:00"
    assert told(day.start_ms - 1_000, "Africa/Cairo") == "2026-04-23T23:59:59+02:00"


def test_an_hour_that_comes_twice_is_in_the_day_whose_date_it_shows() -> None:
    first, again = at("2026-11-01T00:30-04:00"), at("2026-11-01T00:30-05:00")
    assert again - first == HOUR_MS
    assert span("day", "America/Havana", first) == span("day", "America/Havana", again)


@pytest.mark.parametrize(
    ("text", "zone", "days", "begins"),
    [
        ("2026-11", "Europe/Berlin", 30, "2026-11-01T00:00:00+01:00"),
        ("2026-12", "Asia/Kathmandu", 31, "2026-12-01T00:00:00+05:45"),
        ("2027-02", "UTC", 28, "2027-02-01T00:00:00+00:00"),
        ("2028-02", "UTC", 29, "2028-02-01T00:00:00+00:00"),
        ("1970-01", "UTC", 31, "1970-01-01T00:00:00+00:00"),
    ],
)
def test_a_month(text: str, zone: str, days: int, begins: str) -> None:
    found = month(text, zone)
    assert told(found.start_ms, zone) == begins
    assert found.until_ms - found.start_ms == days * DAY_MS
    assert span("month", zone, found.until_ms - 1) == found


@pytest.mark.parametrize(
    "text",
    [
        "2026-13",
        "2026-00",
        "2026",
        "11-2026",
        "2026-11-24",
        "november",
        "",
        "26-11",
        "0000-01",
        "2026-11\n",
        "-2026-11",
    ],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no month"):
        month(text, "UTC")


@given(st.sampled_from(ZONES), st.integers(1, 9_999), st.integers(1, 12))
@example("UTC", 9_999, 12)
@example("America/New_York", 1, 1)
@example("Pacific/Kiritimati", 1, 1)
@example("Europe/Berlin", 1_890, 5)  # its clock differed from UTC by 53 minutes and 28 seconds
def test_a_month_is_a_span_or_refused(zone: str, year: int, number: int) -> None:
    try:
        found = month(f"{year:04}-{number:02}", zone)
    except UsageError:
        assert not 1970 <= year < 9_999, "only a month of another age may be refused"
        return
    assert year >= 1970
    assert day_of(found.start_ms, zone).startswith(f"{year:04}-{number:02}-01")
    assert 27 * DAY_MS < found.until_ms - found.start_ms < 32 * DAY_MS


def test_total_is_one_window() -> None:
    assert span("total", "Europe/Berlin", 0) == span("total", "", at("2026-11-24T12:00+01:00")) == ALWAYS == Span(0, 0)
    assert ALWAYS.holds(0)
    assert ALWAYS.holds(1 << 62)


def test_a_span_ends_before_its_end() -> None:
    assert [Span(10, 20).holds(moment) for moment in (9, 10, 19, 20)] == [False, True, True, False]


def test_no_zone_is_utc_and_a_wrong_one_is_refused() -> None:
    noon = at("2026-11-24T12:00+00:00")
    assert span("day", "", noon) == span("day", "UTC", noon)
    with pytest.raises(ValueError, match="is no time zone"):
        span("day", "Mars/Base", noon)


@pytest.mark.parametrize("zone", ZONES)
def test_all_days_of_some_years_follow_each_other(zone: str) -> None:
    starts = [span("day", zone, at("2026-01-01T12:00+00:00")).start_ms]
    while starts[-1] < at("2030-01-02T00:00+00:00"):
        starts.append(span("day", zone, starts[-1]).until_ms)
    dates = [date.fromisoformat(day_of(each, zone)) for each in starts]
    assert {(b - a).days for a, b in pairwise(dates)} == {1}
    changes = [datetime.fromtimestamp(each / 1_000, UTC).astimezone(zone_of(zone)).utcoffset() for each in starts]
    assert {b - a for a, b in pairwise(starts)} <= {22 * HOUR_MS, 23 * HOUR_MS, 23.5 * HOUR_MS, DAY_MS, 24.5 * HOUR_MS,
                                                     25 * HOUR_MS, 26 * HOUR_MS}  # fmt: skip
    assert (len(set(changes)) > 1) == (len({b - a for a, b in pairwise(starts)}) > 1)
