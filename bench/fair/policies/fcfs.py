"""First come, first served."""

from __future__ import annotations

from collections import deque

from bench.fair.call import Call
from bench.fair.policy import Quiet, Site


class Fcfs(Quiet):
    """One queue."""

    def __init__(self, site: Site) -> None:
        self._queue: deque[Call] = deque()

    def add(self, call: Call, now: float) -> None:
        """To the end."""
        self._queue.append(call)

    def choose(self, now: float) -> Call | None:
        """From the head."""
        return self._queue.popleft() if self._queue else None
