"""The log of a daemon that a client started: its standard error, a file of bounded size.

When it has half of `bytes_max`, it becomes `NAME.1` (the one before is gone) and a new one begins. Standard error
goes along, so that a crash of the interpreter is in the newer file, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

from mains.daemon.launch import turn_over

_STDERR = 2


class BoundedStderr(logging.StreamHandler):  # type: ignore[type-arg] # generic only in stubs
    """Log lines to standard error, which is the file `path`. Failing to turn over loses nothing: the file grows on."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._bytes_max = bytes_max

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        with contextlib.suppress(OSError):
            if os.fstat(_STDERR).st_size > self._bytes_max // 2:
                turn_over(self._path, self._bytes_max)  # unless somebody has done so already
                file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.dup2(file, _STDERR)
                os.close(file)
