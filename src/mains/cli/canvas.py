"""A canvas: a whole terminal of lines above one line at the foot, for the screens of `top` and `meter watch`.

It draws what it is told to draw, and lets other threads change what that is: a change is made where the screen is
drawn, so that nothing is drawn half changed. Ctrl-C leaves and Ctrl-Z suspends, on every canvas; other keys are the
screen's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import FormattedTextControl, Layout, Window

from mains.cli.board import Line

_ESCAPE_S = 0.05  # after so long, Esc alone is a key


class Canvas:
    """`lines` and `foot` say what to draw on so many columns, and rows; `keys` may get more keys before it runs."""

    def __init__(self, lines: Callable[[int, int], list[Line]], foot: Callable[[int], tuple[str, str]]) -> None:
        self._lines = lines
        self._foot = foot
        self.keys = KeyBindings()
        self.keys.add("c-c")(leave)
        self.keys.add("c-z")(_suspend)
        control = FormattedTextControl(self._text, show_cursor=False)
        self._app: Application[None] = Application(
            Layout(Window(control, wrap_lines=False)), key_bindings=self.keys, full_screen=True
        )
        self._app.ttimeoutlen = _ESCAPE_S

    def run(self, begin: Callable[[], None]) -> None:
        """Show it until the person leaves; `begin` is called when it can be changed."""
        self._app.run(pre_run=begin)

    def change(self, change: Callable[[], None]) -> None:
        """Make a change where the screen is drawn, and draw it. For any thread."""

        def do() -> None:
            change()
            self._app.invalidate()

        if self._app.loop is not None:
            with contextlib.suppress(RuntimeError):  # the person has left
                self._app.loop.call_soon_threadsafe(do)

    def _text(self) -> StyleAndTextTuples:
        size = self._app.output.get_size()
        width, height = size.columns, size.rows - 1
        lines = self._lines(width, height)
        text: StyleAndTextTuples = []
        for line in [*lines, *[[("", "")]] * (height - len(lines))]:
            text += [*line, ("", "\n")]
        return [*text, self._foot(width)]


def leave(event: KeyPressEvent) -> None:
    """What a key that ends a screen does."""
    event.app.exit()


def _suspend(event: KeyPressEvent) -> None:
    event.app.suspend_to_background()
