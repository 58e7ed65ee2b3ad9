"""The screen of `mains top`: draws a board, reads keys, and leaves the daemon to two threads.

One thread looks: the daemon answers when anything has happened, or after a second; then comes a pause that grows with
the number of processes, so that ten thousand cost a tenth of a core and not a whole one. The other
gives orders (`clerk.py`). The screen itself never waits for either. A daemon that goes away is told and looked
for again; it is not started: somebody may have ended it on purpose.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from mains.cli.board import Board, Line, View, fitted
from mains.cli.canvas import Canvas, leave
from mains.cli.clerk import Clerk, Order
from mains.cli.inspect import sections
from mains.cli.options import settings_of
from mains.cli.render import clean
from mains.daemon.client import Client
from mains.errors import MainsError
from mains.home import Home

_SHORTEST_S = 0.2  # between two looks
_PAUSE_S = 130e-6  # for each process: ten times what it costs to look at one (`daemon/survey.py`)
_AGAIN_S = 1.0  # when no daemon answers
_DETAIL_LINES_MAX = 2_000
_FILTER_MAX = 100
_LEAVE_S = 5.0  # for orders that were given last
_FAR = 1_000_000_000
_KEYS = "q quit  ? help  arrows select  Enter details  p pause  x kill  s sort  / filter  a all"
_HELP = """
  arrows, j k     select a process; PgUp and PgDn, Home and End go far
  Enter           everything about it; Esc comes back
  p               pause it and all below it, or let it go on
  x               end it and all below it (asks first)
  s, S            sort by the next column; the other way round
  /               show only what has this text in pid, program, state or reason
  a               also those that have ended, or not
  ?               this help
  q, Ctrl-C       leave; processes go on

  TOK/S is what was charged in the last ten seconds, counted when a reply is there.
"""


class TopScreen:
    """See the module's header. `run` returns when the person has left."""

    def __init__(self, home: Home, survey: View, *, every: bool) -> None:
        self._home = home
        self._board = Board()
        self._board.every = every
        self._board.take(survey, time.monotonic())
        self._seq: int = survey["seq"]
        self._mode = "table"  # table, help, details, filter, kill
        self._details: list[str] = []
        self._scroll = 0
        self._told = ""
        self._lost = ""
        self._victim: View | None = None
        self._look_now = threading.Event()
        self._clerk = Clerk(self._client(), self._fail, self._look_now.set)
        self._canvas = Canvas(self._lines, self._foot)
        self._bind(self._canvas.keys)

    def run(self) -> None:
        """Show it until the person leaves."""
        self._canvas.run(self._begin)
        self._clerk.close(_LEAVE_S)

    def _begin(self) -> None:
        threading.Thread(target=self._look, daemon=True).start()

    # the thread that looks

    def _client(self) -> Client:
        return Client(self._home, settings_of(self._home), start=False)

    def _look(self) -> None:
        client, every, seq = self._client(), self._board.every, self._seq
        while True:
            if every is not self._board.every or self._lost:
                every, seq = self._board.every, 0  # at once
            try:
                survey = client.survey(every=every, after_seq=seq)
            except MainsError as error:
                self._canvas.change(partial(self._miss, str(error)))
                pause_s = _AGAIN_S
            else:
                seq = survey["seq"]
                self._canvas.change(partial(self._take, survey, time.monotonic()))
                pause_s = max(_SHORTEST_S, _PAUSE_S * len(survey["processes"]))
            self._look_now.wait(pause_s)
            self._look_now.clear()

    def _take(self, survey: View, now_s: float) -> None:
        self._lost = ""
        self._board.take(survey, now_s)

    def _miss(self, why: str) -> None:
        self._lost = why

    def _tell(self, text: str) -> None:
        self._told = text

    def _fail(self, error: MainsError) -> None:
        self._canvas.change(partial(self._tell, clean(str(error))))

    def _order(self, order: Order) -> None:
        if not self._clerk.give(order):
            self._told = "the daemon is slow: too many orders wait"

    # the keys

    def _bind(self, bindings: KeyBindings) -> None:
        self._bind_everywhere(bindings)
        self._bind_table(bindings)
        self._bind_filter(bindings)
        in_kill = Condition(lambda: self._mode == "kill")

        @bindings.add(Keys.Any, filter=in_kill)
        def _(event: KeyPressEvent) -> None:
            self._mode = "table"
            if event.data == "y" and self._victim is not None:
                self._signal(self._victim, "TERM", "is told to end")

    def _bind_everywhere(self, bindings: KeyBindings) -> None:
        bindings.add("q", filter=Condition(lambda: self._mode == "table"))(leave)
        aside = Condition(lambda: self._mode in ("help", "details"))

        @bindings.add("q", filter=aside)
        @bindings.add("enter", filter=aside)
        @bindings.add("?", filter=aside)
        @bindings.add("escape", filter=aside)
        def _(_: KeyPressEvent) -> None:
            self._mode = "table"

        steps = (("up", -1), ("k", -1), ("down", 1), ("j", 1), ("pageup", -15), ("pagedown", 15))
        for key, by in (*steps, ("home", -_FAR), ("end", _FAR)):
            moving = Condition(lambda: self._mode in ("table", "help", "details"))
            bindings.add(key, filter=moving)(lambda _, by=by: self._move(by))

    def _move(self, by: int) -> None:
        if self._mode == "table":
            self._board.move(by)
        else:
            self._scroll = min(max(0, self._scroll + by), max(0, len(self._details) - 5))

    def _bind_table(self, bindings: KeyBindings) -> None:
        keys: dict[str, Callable[[], None]] = {
            "s": self._board.sort_next,
            "S": lambda: setattr(self._board, "reverse", not self._board.reverse),
            "a": self._toggle_every,
            "p": self._pause,
            "x": self._ask_to_kill,
            "/": partial(self._enter, "filter"),
            "?": lambda: self._read(_HELP.splitlines(), "help"),
            "enter": self._show,
        }
        in_table = Condition(lambda: self._mode == "table")
        for key, act in keys.items():
            bindings.add(key, filter=in_table)(lambda _, act=act: self._press(act))

    def _press(self, act: Callable[[], None]) -> None:
        self._told = ""
        act()

    def _enter(self, mode: str) -> None:
        self._mode = mode

    def _bind_filter(self, bindings: KeyBindings) -> None:
        in_filter = Condition(lambda: self._mode == "filter")

        @bindings.add(Keys.Any, filter=in_filter)
        @bindings.add(Keys.BracketedPaste, filter=in_filter)
        def _(event: KeyPressEvent) -> None:
            self._board.filter = clean(self._board.filter + event.data)[:_FILTER_MAX]

        @bindings.add("backspace", filter=in_filter)
        def _(_: KeyPressEvent) -> None:
            self._board.filter = self._board.filter[:-1]

        @bindings.add("enter", filter=in_filter)
        def _(_: KeyPressEvent) -> None:
            self._mode = "table"

        @bindings.add("escape", filter=in_filter)
        def _(_: KeyPressEvent) -> None:
            self._mode, self._board.filter = "table", ""

    # what the keys do

    def _toggle_every(self) -> None:
        self._board.every = not self._board.every
        self._look_now.set()

    def _pause(self) -> None:
        if (view := self._board.chosen()) is None:
            return
        if view["state"] == "STOPPED" or view["reason"] == "pausing":
            self._signal(view, "CONT", "goes on")
        else:
            self._signal(view, "STOP", "pauses")

    def _ask_to_kill(self) -> None:
        self._victim = self._board.chosen()
        if self._victim is not None:
            self._mode = "kill"

    def _signal(self, view: View, signal: str, told: str) -> None:
        def give(client: Client) -> None:
            changed = client.signal(view["pid"], signal)
            more = f" (and {len(changed) - 1} below it)" if len(changed) > 1 else ""
            text = f"process {view['pid']} {told}{more}" if changed else f"process {view['pid']}: nothing changed"
            self._canvas.change(partial(self._tell, text))

        self._order(give)

    def _show(self) -> None:
        if (view := self._board.chosen()) is None:
            return

        def give(client: Client) -> None:
            lines: list[str] = []
            for title, told in sections(client.show(view["pid"])):
                found = [f"  {clean(line)}" for line in told]
                lines += [title, *found] if found else []
            self._canvas.change(partial(self._read_details, lines[:_DETAIL_LINES_MAX]))

        self._order(give)

    def _read_details(self, lines: list[str]) -> None:
        if self._mode == "table":  # the person has not gone elsewhere meanwhile
            self._read(lines, "details")

    def _read(self, lines: list[str], mode: str) -> None:
        self._details, self._scroll, self._mode = lines, 0, mode

    # what is drawn

    def _lines(self, width: int, height: int) -> list[Line]:
        if self._mode in ("help", "details"):
            return [[("", fitted(line, width))] for line in self._details[self._scroll : self._scroll + height]]
        lines = self._board.lines(width, height)
        return [[(style, fitted(part, width)) for style, part in line] if len(line) == 1 else line for line in lines]

    def _foot(self, width: int) -> tuple[str, str]:
        if self._lost:
            return "reverse ansired", fitted(f"{self._lost}; looking again every second (q quits)", width)
        if self._mode == "kill" and self._victim is not None:
            view = self._victim
            return "reverse", fitted(f"end process {view['pid']} ({view['program']}) and all below it? y/n", width)
        if self._mode == "filter":
            return "", fitted(f"/{self._board.filter}_   (Enter keeps it, Esc clears it)", width)
        if self._mode in ("help", "details"):
            return "dim", fitted("Esc comes back", width)
        if self._told:
            return "bold", fitted(self._told, width)
        order = f"by {self._board.order}{' reversed' if self._board.reverse else ''}"
        kept = f"  filter: {self._board.filter}" if self._board.filter else ""
        return "dim", fitted(f"{order}{kept}  {_KEYS}", width)
