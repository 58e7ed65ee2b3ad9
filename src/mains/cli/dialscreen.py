"""The screen of `mains meter watch`: draws a dial, and leaves the daemon to a thread that looks at the meter.

Between two looks comes a pause of a second, or of ten times what the look took, so that a large ledger costs a tenth of
a core and not a whole one. A daemon that goes away is told and looked for again; it is not started.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from mains.cli.board import fitted
from mains.cli.dial import Dial
from mains.cli.options import settings_of
from mains.cli.reading import Reading, read
from mains.cli.render import clean
from mains.daemon.client import Client
from mains.errors import MainsError
from mains.home import Home

_PAUSE_S = 1.0
_PAUSES = 10  # times what a look took
_KEYS = " q quits; every limit warns at 50, 80 and 95 %; ▂ is held by calls in flight"


class DialScreen:
    """See the module's header. `run` returns when the person has left."""

    def __init__(self, home: Home, account: str, dial: Dial) -> None:
        self._home = home
        self._account = account
        self._dial = dial
        self._lost = ""
        self._left = threading.Event()
        control = FormattedTextControl(self._text, show_cursor=False)
        self._app: Application[None] = Application(
            Layout(Window(control, wrap_lines=False)), key_bindings=_bindings(), full_screen=True
        )

    def run(self) -> None:
        """Show it until the person leaves."""
        try:
            self._app.run(pre_run=self._begin)
        finally:
            self._left.set()

    def _begin(self) -> None:
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        client = Client(self._home, settings_of(self._home), start=False)
        pause_s = _PAUSE_S
        while not self._left.wait(pause_s):
            begun_s = time.monotonic()
            try:
                reading = read(client, self._account, int(time.time() * 1_000))
            except MainsError as error:
                self._in_loop(partial(self._miss, clean(str(error))))
            else:
                self._in_loop(partial(self._take, reading))
            pause_s = max(_PAUSE_S, _PAUSES * (time.monotonic() - begun_s))

    def _take(self, reading: Reading) -> None:
        self._lost = ""
        self._dial.take(reading)

    def _miss(self, why: str) -> None:
        self._lost = why

    def _in_loop(self, change: Callable[[], None]) -> None:
        """Make a change where the screen is drawn, and draw it."""

        def do() -> None:
            change()
            self._app.invalidate()

        if self._app.loop is not None:
            with contextlib.suppress(RuntimeError):  # the person has left
                self._app.loop.call_soon_threadsafe(do)

    def _text(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        lines = self._dial.lines(size.columns, size.rows - 1)
        lines += [[("", "")]] * (size.rows - 1 - len(lines))
        text: StyleAndTextTuples = []
        for line in lines:
            text += [*line, ("", "\n")]
        if self._lost:
            return [*text, ("reverse ansired", fitted(f"{self._lost}; looking again (q quits)", size.columns))]
        return [*text, ("dim", fitted(_KEYS, size.columns))]


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("q")
    @bindings.add("c-c")
    def _(event: KeyPressEvent) -> None:
        event.app.exit()

    @bindings.add("c-z")
    def _(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()

    return bindings
