"""A limit of requests a minute for each tenant, first come, first served below it.

The limit is a tenant's equal share of what the engine could do, had all calls the size of the average so far; who is
over it waits for the next minute, as clients of a rate-limited API do, also when the engine is idle.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Site

WINDOW_S = 60.0


class Rpm:
    """A queue a tenant, and how many calls each has begun in this minute."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._queues: dict[int, deque[Call]] = {}
        self._begun: Counter[int] = Counter()
        self._window = 0
        self._held_s = 0.0  # slot time of the calls that have ended
        self._ended = 0
        self.limit = site.speeds.slots  # until the first call has ended

    def add(self, call: Call, now: float) -> None:
        """To the end of the tenant's queue."""
        self._queues.setdefault(call.tenant, deque()).append(call)

    def choose(self, now: float) -> Call | None:
        """The oldest call of a tenant that is below its limit."""
        if int(now // WINDOW_S) != self._window:
            self._window = int(now // WINDOW_S)
            self._begun.clear()
            if self._ended:
                share = self._site.speeds.slots * WINDOW_S / (self._held_s / self._ended) / self._site.tenants
                self.limit = max(1, int(share))
        heads = [queue[0] for tenant, queue in self._queues.items() if queue and self._begun[tenant] < self.limit]
        if not heads:
            return None
        call = min(heads, key=lambda head: head.number)
        self._begun[call.tenant] += 1
        return self._queues[call.tenant].popleft()

    def started(self, started: Started) -> None:
        """Counted when it was chosen."""

    def ended(self, started: Started, now: float) -> None:
        """Learn the average size."""
        self._held_s += now - started.began_s
        self._ended += 1

    def wake_s(self, now: float) -> float:
        """At the next minute, when somebody waits."""
        return (now // WINDOW_S + 1) * WINDOW_S if any(self._queues.values()) else math.inf
