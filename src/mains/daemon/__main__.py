"""`python -m mains.daemon --home HOME --idle SECONDS`: a daemon that a client started.

It ends by itself when there is nothing to do. When another daemon serves the home already, it ends with exit code 0
and says nothing. Anything that keeps it from starting stands in the log's last lines: `error: ...`, `hint: ...`; the
exit code is 2 when mains.toml or the home must be mended first, else 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from mains.daemon.launch import BAD_CONFIG, answers
from mains.daemon.logfile import BoundedStderr
from mains.daemon.reports import Place
from mains.daemon.server import log_to_stderr, run
from mains.errors import ConfigError, HomeLockedError, MainsError
from mains.home import Home

_LOOK_S = 0.05
_BEGIN_S = 2.0  # from taking the lock to listening
_END_S = 15.0  # from no longer listening to giving the lock back

_log = logging.getLogger("mains.daemon")


def main() -> int:
    """Serve; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mains.daemon")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--idle", type=float, required=True, help="seconds with nothing to do, after which it ends")
    given = parser.parse_args()
    home = Home(given.home.absolute())
    try:
        log_to_stderr(logging.INFO, BoundedStderr(home.logs / "daemon.log", home.settings().log_bytes_max))
        return _serve_or_yield(Place(home=home, idle_s=given.idle))
    except MainsError as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return BAD_CONFIG if isinstance(error, ConfigError) and not isinstance(error, HomeLockedError) else 1


def _serve_or_yield(place: Place) -> int:
    """Serve the home. While another holds it: end when it is a daemon that answers, wait when it begins or ends."""
    begun_s = time.monotonic()
    while True:
        try:
            return run(place, _ready)
        except HomeLockedError:
            if answers(place.home):
                return 0
            waited_s = time.monotonic() - begun_s
            if waited_s > (_END_S if place.home.socket.exists() else _BEGIN_S):
                raise
        time.sleep(_LOOK_S)


def _ready(place: Place) -> None:
    os.chdir(place.home.path)
    _log.info("serving %s", place.home.path)


if __name__ == "__main__":
    sys.exit(main())
