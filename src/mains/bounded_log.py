"""A log of bounded size: when it is full, it becomes `NAME.1` (the one before is gone) and a new one begins.

Written by one process. Failing to write loses the text and nothing else: a log is never worth an engine.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_LAST_BYTES = 8 * 1024


class BoundedLog:
    """A file of at most `bytes_max / 2`, and its predecessor. The end of what was written stays in memory too."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self._path = path
        self._half = max(1, bytes_max // 2)
        self._last = b""

    def write(self, data: bytes) -> None:
        """Append; the folder is made when it is missing."""
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
        self._last = b""

    @property
    def last(self) -> str:
        """The last few kilobytes since `begin`."""
        return self._last.decode("utf-8", "replace")
