"""The board of `mains top`: from surveys to the rows that are shown. Pure: no terminal, no clock, no daemon.

    board.take(survey, now_s)      the newest survey; speeds come from those before it
    board.rows()                   processes that fit the filter, in order
    board.lines(width, height)     what fits on the screen, as (style, text) pieces

The selected process stays selected when rows move. A speed is what a process was charged over the last `SPEED_S`
seconds: tokens are counted when a reply is there, so that of a long reply comes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mains.cli.render import age, clean, name_of, with_accounts

View = Mapping[str, Any]
Line = list[tuple[str, str]]

SPEED_S = 10.0
ORDERS = ("pid", "state", "tokens", "tokens/s", "age")
_STATES = ("RUNNING", "READY", "STOPPED", "WAITING", "NEW", "EXITED")
_STYLES = {"RUNNING": "ansigreen", "READY": "ansicyan", "STOPPED": "ansired", "EXITED": "ansibrightblack"}
_HEADS = ("PID", "PARENT", "PROGRAM", "ACCOUNT", "STATE", "REASON", "TURNS", "TOKENS", "TOK/S", "AGE")
_RIGHT = frozenset({"PID", "PARENT", "TURNS", "TOKENS", "TOK/S", "AGE"})
_PROGRAM_MIN, _REASON_MIN = 8, 6
_ENGINES_SHOWN = 3


class _Then(NamedTuple):
    """What was charged at one moment, by pid; pids above `last` were not born yet."""

    at_s: float
    total: int
    tokens: dict[int, int]
    last: int


class Board:
    """See the module's header. `order`, `reverse`, `filter` and `every` are what the person chose."""

    def __init__(self) -> None:
        self.order = "pid"
        self.reverse = False
        self.filter = ""
        self.every = False
        self.selected = 0
        self._survey: View | None = None
        self._past: deque[_Then] = deque()
        self._now_s = 0.0
        self._at = 0  # where the selected row stands
        self._top = 0  # the first row on the screen

    # what is known

    @property
    def known(self) -> bool:
        """Whether there was a survey yet."""
        return self._survey is not None

    def take(self, survey: View, now_s: float) -> None:
        """The newest survey."""
        self._survey, self._now_s = survey, now_s
        tokens = {view["pid"]: view["tokens"] for view in survey["processes"]}
        if not self._past or now_s - self._past[-1].at_s >= 1:
            self._past.append(_Then(now_s, survey["tokens"], tokens, max(tokens, default=0)))
        while len(self._past) > 1 and now_s - self._past[1].at_s >= SPEED_S:
            self._past.popleft()

    def speed(self, view: View) -> float:
        """Tokens a second that a process was charged lately."""
        if not self._past:
            return 0.0
        then = self._past[0]
        before = then.tokens.get(view["pid"], 0 if view["pid"] > then.last else view["tokens"])
        return self._a_second(view["tokens"] - before)

    def total_speed(self) -> float:
        """Tokens a second that the home was charged lately."""
        return self._a_second(self._survey["tokens"] - self._past[0].total) if self._survey else 0.0

    def _a_second(self, tokens: int) -> float:
        span_s = self._now_s - self._past[0].at_s
        return max(0, tokens) / span_s if span_s > 0 else 0.0

    def rows(self) -> list[View]:
        """The processes that fit the filter, in the order that was chosen."""
        if self._survey is None:
            return []
        found = [view for view in self._survey["processes"] if self._fits(view)]
        found.sort(key=self._key, reverse=self.reverse != (self.order in ("tokens", "tokens/s")))
        return found

    def _fits(self, view: View) -> bool:
        if not self.every and view["state"] == "EXITED":
            return False
        wanted = self.filter.lower()
        told = (view["pid"], name_of(view), view["account"], view["state"], view["reason"])
        return not wanted or wanted in " ".join(map(str, told)).lower()

    def _key(self, view: View) -> Any:
        match self.order:
            case "state":
                return _STATES.index(view["state"]), view["pid"]
            case "tokens":
                return view["tokens"], view["pid"]
            case "tokens/s":
                return self.speed(view), view["pid"]
            case "age":
                return view["created_at"], view["pid"]
        return view["pid"]

    # what the person does

    def sort_next(self) -> None:
        """Sort by the next column."""
        self.order = ORDERS[(ORDERS.index(self.order) + 1) % len(ORDERS)]

    def move(self, by: int) -> None:
        """Select another row."""
        rows = self.rows()
        self._settle(rows)
        if rows:
            self._at = min(max(0, self._at + by), len(rows) - 1)
            self.selected = rows[self._at]["pid"]

    def chosen(self) -> View | None:
        """The selected process."""
        rows = self.rows()
        self._settle(rows)
        return rows[self._at] if rows else None

    def _settle(self, rows: Sequence[View]) -> None:
        """Find the selected process again; when it is gone, take the row that stands in its place."""
        for at, view in enumerate(rows):
            if view["pid"] == self.selected:
                self._at = at
                return
        self._at = min(self._at, max(0, len(rows) - 1))
        self.selected = rows[self._at]["pid"] if rows else 0

    # what is drawn

    def lines(self, width: int, height: int) -> list[Line]:
        """The header, and the rows around the selected one: exactly `height` lines at most."""
        if self._survey is None:
            return []
        rows = self.rows()
        self._settle(rows)
        head = self._head(len(rows))
        room = max(1, height - len(head) - 1)
        self._top = min(max(self._top, self._at - room + 1), self._at, max(0, len(rows) - room))
        shown = rows[self._top : self._top + room]
        return [*head, *self._table(shown, width)][: max(0, height)]

    def _head(self, shown: int) -> list[Line]:
        survey = self._survey or {}
        counts = ", ".join(f"{survey['states'][state]:,} {state}" for state in _STATES if state in survey["states"])
        alive = sum(survey["states"].values())
        told = f"{alive:,} process{'es' if alive > 1 else ''}: {counts}" if alive else "no process is alive"
        if self.every or shown != alive:
            told += f"; {shown:,} listed"
        speed = f"{survey['tokens']:,} tokens, {self.total_speed():,.0f} a second"
        return [[("bold", told)], [("", "; ".join([*self._engines(), speed]))]]

    def _engines(self) -> Iterator[str]:
        """The engines that are busy first."""
        engines = sorted((self._survey or {})["engines"], key=lambda engine: -engine["busy"])
        for engine in engines[:_ENGINES_SHOWN]:
            pace = f", {engine['tokens_per_s']:.0f} tok/s" if engine["tokens_per_s"] else ""
            ill = "" if engine["health"] == "ok" else f", {engine['health']}"
            yield clean(f"{engine['name']} {engine['busy']}/{engine['slots']}{pace}{ill}")
        if len(engines) > _ENGINES_SHOWN:
            yield f"{len(engines) - _ENGINES_SHOWN} more engines"

    def _table(self, shown: Sequence[View], width: int) -> Iterator[Line]:
        now = datetime.now(UTC)
        heads = _HEADS if with_accounts(shown) else tuple(head for head in _HEADS if head != "ACCOUNT")
        cells = [[text for head, text in self._cells(view, now).items() if head in heads] for view in shown]
        widths = _widths(heads, cells, width)
        yield [("underline", _joined(heads, heads, widths))]
        for view, row in zip(shown, cells, strict=True):
            picked = "reverse" if view["pid"] == self.selected else _STYLES.get(view["state"], "")
            yield [(picked, _joined(heads, row, widths))]

    def _cells(self, view: View, now: datetime) -> dict[str, str]:
        speed = self.speed(view)
        cells = (
            str(view["pid"]),
            str(view["parent"] or ""),
            clean(name_of(view)[:200]),
            clean(view["account"]),
            view["state"],
            clean(view["reason"][:200]),
            str(view["turns"]),
            f"{view['tokens']:,}",
            f"{speed:,.0f}" if speed >= 0.5 else "",
            age(view["created_at"], now),
        )
        return dict(zip(_HEADS, cells, strict=True))


def _widths(heads: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Numbers get what they need; program and reason share what is left."""
    needed = [max(map(cells_of, column)) for column in zip(heads, *cells, strict=True)]
    program, reason = heads.index("PROGRAM"), heads.index("REASON")
    fixed = sum(needed) - needed[program] - needed[reason] + len(heads) - 1
    left = max(_PROGRAM_MIN + _REASON_MIN, width - fixed)
    needed[program] = min(needed[program], max(_PROGRAM_MIN, left - min(needed[reason], left // 2)))
    needed[reason] = max(_REASON_MIN, left - needed[program])
    return needed


def _joined(heads: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> str:
    return " ".join(fitted(cell, width, head in _RIGHT) for head, cell, width in zip(heads, row, widths, strict=True))


def cells_of(text: str) -> int:
    """How many columns of a terminal a text takes."""
    from prompt_toolkit.utils import get_cwidth

    return len(text) if text.isascii() else get_cwidth(text)


def fitted(text: str, width: int, right: bool = False) -> str:
    """A text in exactly `width` columns: cut with an ellipsis, or filled with spaces."""
    size = cells_of(text)
    if size > width:
        kept, size = "", 1
        for char in text:
            if size + cells_of(char) > width:
                break
            kept, size = kept + char, size + cells_of(char)
        text = f"{kept}…" if width else ""
    space = " " * max(0, width - size)
    return space + text if right else text + space
