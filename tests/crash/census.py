"""Who is there of the devices of a test: looked up in /proc again and again, in a thread.

with Census(marker) as census: ...        processes whose command line has the marker, by what they are
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

ROLES = ("supervisor", "launcher", "server", "worker")
_SIGNS = {"supervisor": b"supervisor.py", "launcher": b"\0launch\0", "server": b"\0serve\0", "worker": b"\0-c\0"}
_PERIOD_S = 0.05


class Found(NamedTuple):
    """A process, its parent, and what its command line says that it is."""

    pid: int
    parent: int
    role: str


def look(marker: str) -> list[Found]:
    """The processes with the marker. One that was forked and is not yet what it will be has its parent's command line:
    it counts as what comes next."""
    found: dict[int, Found] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - twice as quick
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
                if marker.encode() not in line:
                    continue
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry)] = Found(int(entry), parent, next(role for role in ROLES if _SIGNS[role] in line))
    return [_become(each, found) for each in found.values()]


def _become(each: Found, found: dict[int, Found]) -> Found:
    above = found.get(each.parent)
    if above is None or above.role != each.role:
        return each
    return each._replace(role=ROLES[min(ROLES.index(each.role) + 1, len(ROLES) - 1)])


class Census:
    """See the module's header. `most` has the largest number of each kind that was ever seen at once."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._count)
        self._waits: list[tuple[Callable[[], bool], threading.Event]] = []
        self.most: Counter[str] = Counter()
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._over.wait(_PERIOD_S):
            self.most |= Counter(each.role for each in look(self._marker))
            self.looks += 1
            for wanted, reached in self._waits:
                if wanted():
                    reached.set()

    def wait(self, wanted: Callable[[], bool], limit_s: float) -> bool:
        """Until it is so; False when that takes too long."""
        reached = threading.Event()
        self._waits.append((wanted, reached))
        return reached.wait(limit_s)

    def watch_end(self, limit_s: float) -> tuple[int, float]:
        """Wait for the end of all that are there now: how many they were, and the seconds. Raises AssertionError."""
        begun = time.monotonic()
        there = look(self._marker)
        descriptors: dict[int, Found] = {}
        try:
            for each in there:
                with contextlib.suppress(ProcessLookupError):
                    descriptors[os.pidfd_open(each.pid)] = each
            for descriptor, each in descriptors.items():
                left_s = max(0.0, begun + limit_s - time.monotonic())
                assert select.select([descriptor], [], [], left_s)[0], f"{each} was left behind"
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return len(there), time.monotonic() - begun
