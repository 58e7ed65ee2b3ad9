"""The dial of `mains meter watch`: from readings to what is shown. Pure: no terminal, no clock, no daemon.

    dial.take(reading)             the newest reading; speeds come from those of the last minute
    dial.lines(width, height)      what fits on the screen, as (style, text) pieces
    dial.plain(width)              all of it as text, for where there is no screen
    dial.as_object()               the figures, for programs

A speed is what was charged over the last minute: a call is charged when its reply is there. A limit's bar shows what
is used, then what is held; its marks are where Mains warns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mains.cli.account import limit_name, percent, room
from mains.cli.amounts import NANO, brief
from mains.cli.board import fitted
from mains.cli.reading import MINUTE_MS, Reading, Row
from mains.cli.render import clean, span

Line = list[tuple[str, str]]
Key = tuple[str, str, str]

MARKS = (50, 80, 95)
_HISTORY_MS = 600_000
_SAMPLES_MAX = 1_200
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_USED, _HELD, _LEFT, _MARK = "▆", "▂", "·", "╎"
_SCALE = 7
_TITLE, _HEAD, _FIGURE = "reverse", "bold", "bold ansicyan"
_PLAIN_LIMITS, _PLAIN_ROWS = 50, 20


class Speed(NamedTuple):
    """What is used in a minute, and in an hour."""

    tokens_a_minute: float = 0.0
    nano_an_hour: float = 0.0


class _Then(NamedTuple):
    at_ms: int
    charged: dict[Key, tuple[int, int]]


class Dial:
    """See the module's header."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._past: deque[_Then] = deque(maxlen=_SAMPLES_MAX)
        self._history: deque[tuple[int, float]] = deque(maxlen=_SAMPLES_MAX)

    # what is known

    def take(self, reading: Reading) -> None:
        """The newest reading."""
        before, self._reading = self._reading, reading
        charged = _charged(reading.today)
        if before is None:
            self._past.append(_Then(reading.at_ms - MINUTE_MS, _less(charged, _charged(reading.minute))))
        elif before.midnight_ms != reading.midnight_ms:  # a new day begins at nothing
            self._past.clear()
            self._past.append(_Then(reading.midnight_ms, {}))
        self._past.append(_Then(reading.at_ms, charged))
        while len(self._past) > 2 and reading.at_ms - self._past[1].at_ms >= MINUTE_MS:
            self._past.popleft()
        self._history.append((reading.at_ms, self.speed().tokens_a_minute))

    def speed(self, key: Key | None = None) -> Speed:
        """The speed of one row of the meter, or of all together."""
        if not self._past:
            return Speed()
        then, now = self._past[0], self._past[-1]
        span_ms = now.at_ms - then.at_ms
        if span_ms <= 0:
            return Speed()
        keys = now.charged if key is None else {key}
        tokens = nano = 0
        for each in keys:
            (after, cost_after), (before, cost_before) = now.charged.get(each, (0, 0)), then.charged.get(each, (0, 0))
            tokens, nano = tokens + max(0, after - before), nano + max(0, cost_after - cost_before)
        return Speed(tokens * 60_000 / span_ms, nano * 3_600_000 / span_ms)

    def burners(self) -> list[tuple[Row, Speed]]:
        """Rows of today, who burns most first: by speed, then by what was used today."""
        rows = self._reading.today if self._reading else []
        found = [(row, self.speed(_key(row))) for row in rows]
        return sorted(found, key=lambda each: (-each[1].tokens_a_minute, -_tokens(each[0]), _key(each[0])))

    def limits(self) -> list[tuple[str, Row]]:
        """Limits with their accounts, the fullest first."""
        found = self._reading.limits if self._reading else []
        return sorted(found, key=lambda each: (-_filled(each[1]), each[0], limit_name(each[1])))

    def as_object(self) -> dict[str, Any]:
        """The figures, for programs."""
        reading = self._known()
        speed = self.speed()
        return {
            "at": _local(reading).isoformat(timespec="seconds"),
            "account": reading.account,
            "currency": reading.currency,
            "tokens_a_minute": round(speed.tokens_a_minute),
            "nano_an_hour": round(speed.nano_an_hour),
            "today": _sums(reading.today),
            "limits": [{"account": name, **limit} for name, limit in self.limits()],
            "rows": [
                {**row, "tokens_a_minute": round(speed.tokens_a_minute), "nano_an_hour": round(speed.nano_an_hour)}
                for row, speed in self.burners()
            ],
        }

    def _known(self) -> Reading:
        if self._reading is None:
            raise ValueError("a dial shows nothing before its first reading")
        return self._reading

    # what is drawn

    def lines(self, width: int, height: int) -> list[Line]:
        """As many lines as fit: figures, their course, limits, who burns most."""
        if self._reading is None:
            return []
        drawn = [self._title(width), [("", "")], *self._figures(width)]
        tall = 6 if height >= 36 else 3 if height >= 20 else 1 if height >= 12 else 0
        drawn += [[("", "")]] if height >= 22 else []
        drawn += [*self._chart(width, tall), [("", "")]] if tall else []
        left = height - len(drawn)
        burners, limits = self.burners(), self.limits()
        for_limits = len(limits) + 1 if limits else 0
        for_limits = min(for_limits, max(left - min(len(burners), 5) - 2, left // 2)) if limits else 0
        if for_limits > 1:
            drawn += [*self._limits(width, for_limits - 1), [("", "")]]
        left = height - len(drawn)
        if left > 1:
            drawn += self._burners(width, left - 1)
        return drawn[: max(0, height)]

    def plain(self, width: int) -> list[str]:
        """All of it as text."""
        drawn = [*self._figures(width)]
        if self.limits():
            drawn += [[("", "")], *self._limits(width, _PLAIN_LIMITS)]
        drawn += [[("", "")], *self._burners(width, _PLAIN_ROWS)]
        return ["".join(text for _, text in line).rstrip() for line in drawn]

    def _title(self, width: int) -> Line:
        reading = self._known()
        left = f" mains meter: {reading.account}"
        right = f"{_local(reading).strftime('%a %d %b %H:%M:%S')} {_local(reading).tzname() or ''} "
        return [(_TITLE, fitted(left, max(0, width - len(right))) + right)]

    def _figures(self, width: int) -> Iterator[Line]:
        reading, speed = self._known(), self.speed()
        sums = _sums(reading.today)
        saved = sums["cache_saved_nano"] + sums["off_peak_saved_nano"]
        cells = [
            ("TOKENS/MIN", f"{speed.tokens_a_minute:,.0f}"),
            (f"{reading.currency.upper()}/HOUR", brief(round(speed.nano_an_hour))),
            ("TOKENS TODAY", f"{sums['tokens']:,}"),
            (f"{reading.currency.upper()} TODAY", brief(sums["cost_nano"])),
            ("SAVED TODAY", brief(saved)),
        ]
        each = max(8, (width - 1) // len(cells))
        yield [(_HEAD, " " + "".join(fitted(head, each - 1) + " " for head, _ in cells))]
        yield [(_FIGURE, " " + "".join(fitted(figure, each - 1) + " " for _, figure in cells))]

    def _chart(self, width: int, rows: int) -> Iterator[Line]:
        """Tokens a minute over the last ten minutes: now is at the right."""
        columns = max(1, width - _SCALE - 4)
        heights = self._course(columns)
        most = max(heights, default=0.0) or 1.0
        for row in reversed(range(rows)):
            cells = [round(height / most * rows * 8) - 8 * row for height in heights]
            scale = _short(round(most)) if row == rows - 1 else "10 min" if row == 0 else ""
            yield [
                ("dim", f" {scale:>{_SCALE}} ┤"),
                ("ansicyan", "".join(_EIGHTHS[min(8, max(0, cell))] for cell in cells)),
            ]

    def _course(self, columns: int) -> list[float]:
        """The speed in each of so many equal parts of the last ten minutes."""
        now_ms = self._known().at_ms
        found: list[float | None] = [None] * columns
        for at_ms, speed in self._history:
            column = columns - 1 - (now_ms - at_ms) * columns // _HISTORY_MS
            if column >= 0:
                found[column] = max(found[column] or 0.0, speed)
        last, drawn = 0.0, []
        for looked in found:  # a part without a look is as the one before it
            last = last if looked is None else looked
            drawn.append(last)
        return drawn

    def _limits(self, width: int, most: int) -> Iterator[Line]:
        limits = self.limits()
        shown = limits[: most if len(limits) <= most else max(1, most - 1)]
        wide = width >= 100
        name_width = min(max(6, *(len(name) for name, _ in shown)), 28 if wide else 16)
        bar_width = max(10, width - name_width - (55 if wide else 44))
        yield [(_HEAD, f" {fitted('LIMITS', name_width)} {'':12} {_ruler(bar_width)}")]
        for name, limit in shown:
            yield self._limit(name, limit, name_width, bar_width, wide)
        if len(limits) > len(shown):
            yield [("dim", f" and {len(limits) - len(shown)} more with more room")]

    def _limit(self, name: str, limit: Row, name_width: int, bar_width: int, wide: bool) -> Line:
        full = percent(limit)
        style = "ansired" if full >= MARKS[2] else "ansiyellow" if full >= MARKS[1] else "ansigreen"
        show = brief if limit["unit"] == "money" else _short
        of = f"{show(limit['used'])} of {show(room(limit))}"
        reset = f"  {self._resets(limit)}" if wide else ""
        filled, rest = _bar(limit, bar_width)
        return [
            ("", f" {fitted(clean(name), name_width)} {limit_name(limit):12} "),
            (style, filled),
            ("dim", rest),
            (f"bold {style}" if full >= MARKS[1] else "", f" {full:3} %"),
            ("", f" {fitted(of, 20)}{fitted(reset, 11) if wide else ''}".rstrip()),
        ]

    def _resets(self, limit: Row) -> str:
        if not limit["resets_at"]:
            return "never"
        seconds = datetime.fromisoformat(limit["resets_at"]).timestamp() - self._known().at_ms / 1_000
        return f"in {span(seconds)}"

    def _burners(self, width: int, most: int) -> Iterator[Line]:
        currency = self._known().currency.upper()
        whose = ("account", "program", "model") if width >= 80 else ("account", "program")
        heads = [*map(str.upper, whose), "TOKENS/MIN", f"{currency}/HOUR", "TOKENS TODAY", f"{currency} TODAY"]
        numbers = [10, 8, 12, 9]
        name_width = max(8, (width - 1 - sum(numbers) - len(heads)) // len(whose))
        widths = [*[name_width] * len(whose), *numbers]
        yield [(_HEAD, " " + _joined(heads, widths, len(whose)))]
        burners = self.burners()
        for row, speed in burners[:most]:
            cells = [
                *(clean(row[name]) for name in whose),
                f"{speed.tokens_a_minute:,.0f}" if speed.tokens_a_minute else "",
                brief(round(speed.nano_an_hour)) if speed.nano_an_hour else "",
                f"{_tokens(row):,}",
                brief(row["cost_nano"]),
            ]
            yield [("" if speed.tokens_a_minute else "dim", " " + _joined(cells, widths, len(whose)))]
        if not burners:
            yield [("dim", " nothing was used today")]


def _joined(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    """Cells in their widths: the first `left` are names, the others numbers."""
    return " ".join(fitted(cell, width, at >= left) for at, (cell, width) in enumerate(zip(cells, widths, strict=True)))


def _key(row: Row) -> Key:
    return row["account"], row["program"], row["model"]


def _tokens(row: Row) -> int:
    return int(row["input_tokens"] + row["output_tokens"])


def _charged(rows: Sequence[Row]) -> dict[Key, tuple[int, int]]:
    return {_key(row): (_tokens(row), row["cost_nano"]) for row in rows}


def _less(charged: Mapping[Key, tuple[int, int]], lately: Mapping[Key, tuple[int, int]]) -> dict[Key, tuple[int, int]]:
    """What was charged before the last minute."""
    return {
        key: (max(0, tokens - lately.get(key, (0, 0))[0]), max(0, nano - lately.get(key, (0, 0))[1]))
        for key, (tokens, nano) in charged.items()
    }


def _sums(rows: Sequence[Row]) -> dict[str, int]:
    names = ("calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano")
    found = {name: sum(row[name] for row in rows) for name in (*names, "cache_saved_nano", "off_peak_saved_nano")}
    return found | {"tokens": found["input_tokens"] + found["output_tokens"]}


def _local(reading: Reading) -> datetime:
    return datetime.fromtimestamp(reading.at_ms / 1_000, UTC).astimezone(reading.zone)


def _filled(limit: Row) -> float:
    return limit["used"] / room(limit) if room(limit) > 0 else 1.0


def _bar(limit: Row, width: int) -> tuple[str, str]:
    """What is used and held, and the rest with its marks. Only a limit that is used up fills the bar."""
    used, held = (_cells(each, room(limit), width) for each in (limit["used"], limit["used"] + limit["held"]))
    filled = _USED * used + _HELD * (held - used)
    return filled, "".join(_MARK if at in _marks(width) else _LEFT for at in range(len(filled), width))


def _cells(part: int, whole: int, width: int) -> int:
    if part >= whole:
        return width
    return min(width - 1, max(int(part > 0), round(width * part / whole)))


def _marks(width: int) -> dict[int, int]:
    """The cell of each mark."""
    return {min(width - 1, width * mark // 100): mark for mark in MARKS}


def _ruler(width: int) -> str:
    """The marks in figures, each above its own; one that would run into the figure before it is left out."""
    cells = [" "] * (width + 2)
    for at, mark in _marks(width).items():
        if cells[max(0, at - 1)] == " ":
            cells[at : at + 2] = str(mark)
    return "".join(cells)


def _short(tokens: int) -> str:
    """Tokens in few characters: 1.2k, 3.4m."""
    for size, letter in ((NANO, "b"), (1_000_000, "m"), (1_000, "k")):
        if tokens >= 10 * size or (size > 1_000 and tokens >= size):
            return f"{tokens / size:.1f}{letter}"
    return f"{tokens:,}"
