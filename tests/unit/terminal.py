"""A terminal for tests: a real pseudo-terminal with a command in it, and the screen that a person would see.

    with Terminal(box, "top", rows=24, columns=80) as terminal:
        terminal.see("RUNNING")          wait until the screen shows it
        terminal.type("q")
        assert terminal.end() == 0

`see` also looks at what has scrolled off the top. Every wait has an end: what was shown stands in the failure.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import Self

import pyte
from tests.unit.daemon_box import COMMAND_S, Box


class _Screen(pyte.HistoryScreen):
    """A screen that says where its cursor is when it is asked."""

    leader = -1

    def write_process_input(self, data: str) -> None:
        os.write(self.leader, data.encode())


class Terminal:
    """See the module's header."""

    def __init__(self, box: Box, *words: str, rows: int = 24, columns: int = 80) -> None:
        self._screen = _Screen(columns, rows, history=10_000, ratio=0.5)
        self._stream = pyte.ByteStream(self._screen)
        self.leader, follower = pty.openpty()
        self._screen.leader = self.leader
        self.resize(rows, columns)
        self.running = subprocess.Popen(
            [sys.executable, "-m", "mains.cli", *words],
            cwd=box.folder,
            env={**os.environ, "TERM": "xterm"},
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)
        self.raw = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.running.kill()
        self.running.wait()
        os.close(self.leader)

    def resize(self, rows: int, columns: int) -> None:
        """Another size; the command is told (SIGWINCH) by the kernel when it runs in this terminal."""
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.leader, keys.encode())

    @property
    def screen(self) -> list[str]:
        """The lines of the screen."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """All that was ever shown and not erased: what has scrolled off, then the screen."""
        gone = ["".join(line[x].data for x in range(self._screen.columns)) for line in self._screen.history.top]
        return "\n".join(line.rstrip() for line in [*gone, *self.screen])

    def see(self, pattern: str, *, gone: bool = False, timeout_s: float = COMMAND_S) -> re.Match[str] | None:
        """Wait until the text has this pattern (or has it no more)."""
        due_s = time.monotonic() + timeout_s
        while True:
            found = re.search(pattern, self.text)
            if bool(found) is not gone:
                return found
            if not self._read(due_s - time.monotonic()):
                raise AssertionError(f"{'still ' if gone else 'no '}{pattern!r} in:\n{self.text}")

    def end(self, timeout_s: float = COMMAND_S) -> int:
        """The exit code, once the command has ended by itself."""
        due_s = time.monotonic() + timeout_s
        while self.running.poll() is None and time.monotonic() < due_s:
            self._read(0.05)
        self._read(0)
        assert self.running.returncode is not None, f"it goes on:\n{self.text}"
        return self.running.returncode

    def _read(self, timeout_s: float) -> bool:
        """Take what comes within this time; False when nothing came."""
        if not select.select([self.leader], [], [], max(0.0, timeout_s))[0]:
            return False
        try:
            data = os.read(self.leader, 65_536)
        except OSError:  # nobody has the other end any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
