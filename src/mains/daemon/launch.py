"""Start a daemon for a home, detached: it outlives the terminal and what started it.

answers(home)       whether somebody listens on the home's socket
start(home, ...)    a process that becomes the daemon, or yields to one
complaint()         the error that a daemon wrote to its log before it ended
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from mains.errors import ConfigError, DaemonError
from mains.home import Home
from mains.settings import Settings

BAD_CONFIG = 2
"""The exit code of a daemon that cannot serve this home before somebody mends it, or its mains.toml."""

_CONNECT_S = 5.0
_LOOK_S = 0.02
_TAIL_BYTES = 64 * 1024


def connect(home: Home, timeout_s: float) -> socket.socket:
    """A connection to the home's daemon. Raises OSError; TimeoutError when its queue stays full."""
    due_s = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(home.socket))
        except BlockingIOError as error:  # a unix socket whose queue is full says so at once
            connection.close()
            if time.monotonic() >= due_s:
                raise TimeoutError from error
            time.sleep(_LOOK_S)
        except OSError:
            connection.close()
            raise
        else:
            return connection


def answers(home: Home) -> bool:
    """Whether somebody listens on the home's socket."""
    try:
        connect(home, _CONNECT_S).close()
    except OSError:
        return False
    return True


class Start:
    """A daemon that was started and may fail: `ended()` gives its exit code, `complaint()` what it said."""

    def __init__(self, home: Home, settings: Settings) -> None:
        home.prepare()
        self.log = home.logs / "daemon.log"
        try:
            turn_over(self.log, settings.log_bytes_max)
        except OSError as error:
            raise ConfigError(f"{self.log}: {error.strerror}") from error
        with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
            self._from = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                # -P: the folder where somebody types a command is no place to import from
                [sys.executable, "-P", "-m", "mains.daemon", "--home", str(home.path), "--idle", str(settings.idle_s)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def release(self) -> None:
        """Let it be: nobody here waits for its end any more (Popen would warn that somebody should)."""
        self._process.returncode = 0

    def complaint(self) -> ConfigError:
        """The last error in what it wrote to its log, as the error that it was: a DaemonError, unless a person must
        mend something first."""
        with self.log.open("rb") as log:
            log.seek(max(self._from, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        told = [at for at, line in enumerate(lines) if line.startswith("error: ")]
        if not told:
            last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
            return DaemonError(f"the daemon did not start: {last}", hint=f"its log: {self.log}")
        hint = next((line[6:] for line in lines[told[-1] + 1 :] if line.startswith("hint: ")), "")
        if self.ended() == BAD_CONFIG:
            return ConfigError(lines[told[-1]][7:], hint=hint)
        return DaemonError(lines[told[-1]][7:], hint=hint or f"its log: {self.log}")


def turn_over(path: Path, bytes_max: int) -> bool:
    """Make a log that is too long the old one; whether it was. Raises OSError."""
    try:
        if path.stat().st_size <= bytes_max // 2:
            return False
        path.replace(path.with_name(f"{path.name}.1"))
    except FileNotFoundError:
        return False
    return True
