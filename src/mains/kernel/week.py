"""The week of a tariff: which of its windows is open, by weekday and hour in a time zone. Pure.

    Hours   when a window is open: weekdays, and from which minute to which
    Week    all windows of a tariff: `at` says which one is open, `changes` when that changes

A window is meant by the clock on the wall, so it keeps its hours when summer time begins and ends: the hour that is
skipped is never open, the hour that comes twice is open twice. An instant is milliseconds since 1970 (UTC); everything
is integer arithmetic but the offset of the zone, which comes from `zoneinfo`.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from mains.errors import ConfigError
from mains.program.schedule import zone_of

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
REST = -1
"""The index of what no window covers."""

_MINUTE_MS = 60_000
_WEEK_MS = WEEK_MINUTES * _MINUTE_MS
_EPOCH_MS = 3 * DAY_MINUTES * _MINUTE_MS  # 1970 began on a Thursday, three days into its week
_STEP_MS = 6 * 60 * _MINUTE_MS  # no zone changes its offset twice in six hours
_ZONE_HINT = "write an IANA name, such as Asia/Shanghai, or UTC"


class Hours(msgspec.Struct, frozen=True, omit_defaults=True):
    """On each of `days` (0 is Monday) from minute `begin` of the day to minute `end`, which is no part of it.

    An `end` that is not after `begin` is one of the next day, so that a window may go past midnight.
    """

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    begin: int = 0
    end: int = DAY_MINUTES

    def check(self, where: str) -> None:
        """Raises ConfigError."""
        if not self.days or not set(self.days) <= set(range(7)) or len(set(self.days)) != len(self.days):
            raise ConfigError(f"{where}: `days` are no weekdays", hint='such as days = "mon-fri"')
        if not (0 <= self.begin < DAY_MINUTES and 0 < self.end <= DAY_MINUTES):
            raise ConfigError(f"{where}: hours run from 00:00 to 24:00", hint='such as from = "22:00", to = "06:00"')
        if self.begin == self.end:
            raise ConfigError(f"{where}: `from` and `to` are the same", hint="leave both out for the whole day")

    def spans(self) -> Iterator[tuple[int, int]]:
        """Minutes of the week: from, to. A span that goes past the end of the week is two."""
        length = self.end - self.begin if self.end > self.begin else self.end + DAY_MINUTES - self.begin
        for day in self.days:
            begin = day * DAY_MINUTES + self.begin
            yield begin, min(begin + length, WEEK_MINUTES)
            if begin + length > WEEK_MINUTES:
                yield 0, begin + length - WEEK_MINUTES


class Week:
    """The windows of a week in a time zone. `whole`: they must leave no minute out; else that is `REST`.

    Raises ConfigError: an unknown zone, windows that overlap, a gap.
    """

    def __init__(self, zone: str, windows: Sequence[Hours], *, whole: bool, where: str) -> None:
        try:
            self._zone = zone_of(zone)
        except ValueError as error:
            raise ConfigError(f"{where}: {zone!r} is no time zone", hint=_ZONE_HINT) from error
        for hours in windows:
            hours.check(where)
        spans = sorted((begin, end, index) for index, hours in enumerate(windows) for begin, end in hours.spans())
        self._begins: list[int] = []  # minutes of the week at which another window may open, the first is 0
        self._indexes: list[int] = []  # which one
        minute = 0
        for begin, end, index in spans:
            if begin < minute:
                hint = "let each hour belong to one of them"
                raise ConfigError(f"{where}: two windows are open on {clock_of(begin)}", hint=hint)
            self._rest(minute, begin, whole, where)
            self._begins.append(begin)
            self._indexes.append(index)
            minute = end
        self._rest(minute, WEEK_MINUTES, whole, where)

    def _rest(self, begin: int, end: int, whole: bool, where: str) -> None:
        if begin == end:
            return
        if whole:
            gap = f"from {clock_of(begin)} to {clock_of(end)}"
            hint = "add a window, or rates beside the windows, which hold for the rest"
            raise ConfigError(f"{where}: no window says what holds {gap}", hint=hint)
        self._begins.append(begin)
        self._indexes.append(REST)

    @property
    def has_rest(self) -> bool:
        """Whether some minute of the week belongs to no window."""
        return REST in self._indexes

    def at(self, at_ms: int) -> int:
        """The index of the window that is open at an instant, or REST."""
        return self._indexes[self._slot(at_ms + self._offset_ms(at_ms))]

    def changes(self, from_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
        """The window that is open at `from_ms`, then each that opens up to `until_ms`, with the instant of it."""
        now, offset = from_ms, self._offset_ms(from_ms)
        index = self._indexes[self._slot(now + offset)]
        yield now, index
        while now < until_ms:
            step = min(now + self._to_next_ms(now + offset), now + _STEP_MS, until_ms)
            after = self._offset_ms(step)
            if after != offset:
                step = self._turn(now, step, offset)
                offset = after
            now = step
            opened = self._indexes[self._slot(now + offset)]
            if opened != index:
                index = opened
                yield now, index

    def _slot(self, wall_ms: int) -> int:
        return bisect.bisect_right(self._begins, (wall_ms + _EPOCH_MS) % _WEEK_MS // _MINUTE_MS) - 1

    def _to_next_ms(self, wall_ms: int) -> int:
        slot = self._slot(wall_ms) + 1
        end = self._begins[slot] if slot < len(self._begins) else WEEK_MINUTES
        return end * _MINUTE_MS - (wall_ms + _EPOCH_MS) % _WEEK_MS

    def _turn(self, before_ms: int, after_ms: int, offset: int) -> int:
        """The first instant after `before_ms` at which the zone has left `offset`."""
        while after_ms - before_ms > 1:
            middle = (before_ms + after_ms) // 2
            if self._offset_ms(middle) == offset:
                before_ms = middle
            else:
                after_ms = middle
        return after_ms

    def _offset_ms(self, at_ms: int) -> int:
        offset = datetime.fromtimestamp(at_ms // 1_000, self._zone).utcoffset() or timedelta()
        return offset // timedelta(milliseconds=1)


def clock_of(minute: int) -> str:
    """A minute of the week for a person: `mon 08:30`."""
    day, rest = divmod(minute, DAY_MINUTES)
    return f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}" if day < 7 else "sun 24:00"
