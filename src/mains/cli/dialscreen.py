"""The screen of `mains meter watch`: draws a dial, and leaves the daemon to a thread that looks at the meter.

Between two looks comes a pause of a second, or of ten times what the look took, so that a large ledger costs a tenth of
a core and not a whole one. A daemon that goes away is told and looked for again; it is not started.
"""

from __future__ import annotations

import threading
import time
from functools import partial

from mains.cli.board import Line, fitted
from mains.cli.canvas import Canvas, leave
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
        self._canvas = Canvas(self._lines, self._foot)
        self._canvas.keys.add("q")(leave)

    def run(self) -> None:
        """Show it until the person leaves."""
        try:
            self._canvas.run(self._begin)
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
                self._canvas.change(partial(self._miss, clean(str(error))))
            else:
                self._canvas.change(partial(self._take, reading))
            pause_s = max(_PAUSE_S, _PAUSES * (time.monotonic() - begun_s))

    def _take(self, reading: Reading) -> None:
        self._lost = ""
        self._dial.take(reading)

    def _miss(self, why: str) -> None:
        self._lost = why

    def _lines(self, width: int, height: int) -> list[Line]:
        return self._dial.lines(width, height)

    def _foot(self, width: int) -> tuple[str, str]:
        if self._lost:
            return "reverse ansired", fitted(f"{self._lost}; looking again (q quits)", width)
        return "dim", fitted(_KEYS, width)
