"""A log of bounded size: when it is full, it becomes `NAME.1` (the one before is gone) and a new one begins.

Written by one process. Failing to write loses the text and nothing else: a log is never worth an engine.

With a `screen`, what is written goes through that first, a whole line at a time, so that nothing slips through in two
halves: an unfinished line waits for its end, for `end_line`, or until it is very long. Of that its last
`_HELD_BYTES` still wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

_LAST_BYTES = 8 * 1024
_HELD_BYTES = 256 * 1024  # more than the longest spelling of any secret


class BoundedLog:
    """A file of at most `bytes_max / 2`, and its predecessor. The end of what was written stays in memory too."""

    def __init__(self, path: Path, bytes_max: int, screen: Callable[[bytes], bytes] | None = None) -> None:
        self._path = path
        self._half = max(1, bytes_max // 2)
        self._screen = screen
        self._held = b""
        self._last = b""

    def write(self, data: bytes) -> None:
        """Append; the folder is made when it is missing."""
        if self._screen is None:
            self._append(data)
            return
        whole, end, rest = (self._held + data).rpartition(b"\n")
        self._held = rest
        if end:
            self._append(self._screen(whole + end))
        if len(self._held) > 2 * _HELD_BYTES:
            screened = self._screen(self._held)
            self._append(screened[:-_HELD_BYTES])
            self._held = screened[-_HELD_BYTES:]

    def screened(self, data: bytes) -> bytes:
        """Data as it would be written: for who cuts it first."""
        return data if self._screen is None else self._screen(data)

    def end_line(self) -> None:
        """Nothing more comes: write what waits for the end of its line."""
        held, self._held = self._held, b""
        if held and self._screen is not None:
            self._append(self._screen(held) + b"\n")

    def _append(self, data: bytes) -> None:
        self._last = (self._last + data)[-_LAST_BYTES:]
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = self._path.stat().st_size if self._path.exists() else 0
            if size and size + len(data) > self._half:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("ab") as file:
                file.write(data[-self._half :])

    def begin(self) -> None:
        """What comes next is about something else: `last` forgets the rest."""
        self.end_line()
        self._last = b""

    @property
    def last(self) -> str:
        """The last few kilobytes since `begin`."""
        return (self._last + self.screened(self._held))[-_LAST_BYTES:].decode("utf-8", "replace")
