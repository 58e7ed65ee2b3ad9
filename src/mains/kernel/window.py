"""Windows: the day, week or month of a time zone in which a moment lies. Pure.

A limit of 200,000 tokens a day begins anew at midnight on the clock of its account. A day on which clocks change has 23
or 25 hours; a week begins on Monday (ISO 8601), a month on its first day. `total` is one window without an end.
"""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple

from mains.errors import KernelPanic, UsageError
from mains.kernel.billing import Window
from mains.program import zone_of

_STEP_MS = 900_000  # every time zone's clock differs from UTC by whole quarters of an hour, and changes at such
_FIRST_YEAR = 1970
_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")


class Span(NamedTuple):
    """From when (inclusive) until when (exclusive), in milliseconds since 1970; until 0: without an end."""

    start_ms: int
    until_ms: int

    def holds(self, at_ms: int) -> bool:
        """Whether a moment lies in it."""
        return self.start_ms <= at_ms and (not self.until_ms or at_ms < self.until_ms)


ALWAYS = Span(0, 0)


def span(window: Window, zone: str, at_ms: int) -> Span:
    """The window of this kind in which `at_ms` lies. Raises ValueError for a name that is no time zone."""
    return ALWAYS if window == "total" else _span(window, zone, at_ms // _STEP_MS)


@lru_cache(maxsize=4_096)
def _span(window: Window, zone: str, step: int) -> Span:
    tz = zone_of(zone)
    day = datetime.fromtimestamp(step * _STEP_MS / 1_000, tz).date()
    match window:
        case "day":
            first, after = day, day + timedelta(days=1)
        case "week":
            first = day - timedelta(days=day.weekday())
            after = first + timedelta(days=7)
        case "month":
            first = day.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
        case _:
            raise KernelPanic(f"there is no window `{window}`")
    start, until = (int(datetime.combine(each, time(), tz).timestamp() * 1_000) for each in (first, after))
    return Span(start, until)


def month(text: str, zone: str) -> Span:
    """The month that is written as 2026-11, on the clock of a time zone. Raises UsageError; so it does before 1970."""
    try:
        if not _MONTH.fullmatch(text):
            raise ValueError("a month has two digits, a year four")
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=zone_of(zone))
        if first.year >= _FIRST_YEAR:  # clocks of older days differ by odd minutes and seconds
            return span("month", zone, int(first.timestamp() * 1_000))
    except (ValueError, OverflowError) as error:  # no month, or one that a calendar of four digits cannot end
        raise UsageError(f"`{text}` is no month", hint="write it as 2026-11") from error
    raise UsageError(f"`{text}` is no month of a ledger: it is before {_FIRST_YEAR}", hint="write it as 2026-11")


def day_of(at_ms: int, zone: str) -> str:
    """The day of a moment on the clock of a time zone: 2026-11-24."""
    return datetime.fromtimestamp(at_ms / 1_000, zone_of(zone)).date().isoformat()


def told(at_ms: int, zone: str) -> str:
    """A moment on the clock of a time zone, ISO 8601 to the second."""
    return datetime.fromtimestamp(at_ms / 1_000, zone_of(zone)).isoformat(timespec="seconds")
