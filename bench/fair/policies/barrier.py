"""FIFO with a barrier, as agiresearch/AIOS schedules model calls.

Sleep a second, take all that waits as one batch, run it, wait for the last of it, sleep again. Calls of the batch run
side by side as far as the engine has slots.
"""

from __future__ import annotations

import math
from collections import deque

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Site

INTERVAL_S = 1.0


class Barrier:
    """The batch that runs, and who came since."""

    def __init__(self, site: Site) -> None:
        self._waiting: deque[Call] = deque()
        self._batch: deque[Call] = deque()
        self._running = 0
        self._opens_s = INTERVAL_S

    def add(self, call: Call, now: float) -> None:
        """For the next batch."""
        self._waiting.append(call)

    def choose(self, now: float) -> Call | None:
        """The batch in its order; a new one when the old is done and the sleep is over."""
        if not self._batch and not self._running:
            if now > self._opens_s:  # it woke for nothing and slept on
                self._opens_s += INTERVAL_S * math.ceil((now - self._opens_s) / INTERVAL_S)
            if now >= self._opens_s:
                self._batch, self._waiting = self._waiting, deque()
        return self._batch.popleft() if self._batch else None

    def started(self, started: Started) -> None:
        """One more to wait for."""
        self._running += 1

    def ended(self, started: Started, now: float) -> None:
        """The last of a batch begins the sleep."""
        self._running -= 1
        if not self._running and not self._batch:
            self._opens_s = now + INTERVAL_S

    def wake_s(self, now: float) -> float:
        """At the end of the sleep."""
        idle = self._waiting and not self._batch and not self._running
        return self._opens_s if idle else math.inf
