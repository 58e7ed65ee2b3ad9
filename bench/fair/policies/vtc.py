"""Virtual token counters (Sheng et al. 2023, "Fairness in Serving Large Language Models").

The tenant that has been served least goes next. Input counts when a call begins (whole, cached or not), output while
it is written. Who comes back after a time without calls is lifted to the least of those who are there: no credit.
An output token weighs what the kernel's weighs, so that all policies balance the same thing (the paper takes 2).
"""

from __future__ import annotations

import math
from collections import deque

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Site
from mains.kernel.waiting import OUTPUT_WEIGHT


class Vtc:
    """A queue and a counter a tenant."""

    def __init__(self, site: Site) -> None:
        self._decode_per_s = site.speeds.decode_per_s
        self._queues: dict[int, deque[Call]] = {}
        self._counters: dict[int, float] = {}
        self._running: dict[int, tuple[Started, int]] = {}  # call number -> it, and output that was counted
        self._left = 0.0  # the counter of the last tenant whose queue became empty

    def add(self, call: Call, now: float) -> None:
        """Queue, and lift a tenant that had nothing here."""
        queue = self._queues.setdefault(call.tenant, deque())
        if not queue:
            others = [self._counters[tenant] for tenant, waiting in self._queues.items() if waiting]
            floor = min(others) if others else self._left
            self._counters[call.tenant] = max(self._counters.get(call.tenant, 0.0), floor)
        queue.append(call)

    def choose(self, now: float) -> Call | None:
        """The oldest call of the tenant with the least counter."""
        self._count_output(now)
        waiting = [tenant for tenant, queue in self._queues.items() if queue]
        if not waiting:
            return None
        tenant = min(waiting, key=lambda one: (self._counters[one], self._queues[one][0].number))
        call = self._queues[tenant].popleft()
        self._counters[tenant] += call.step.input_tokens
        if not self._queues[tenant]:
            self._left = self._counters[tenant]
        return call

    def started(self, started: Started) -> None:
        """Its output is counted from now on."""
        self._running[started.call.number] = (started, 0)

    def ended(self, started: Started, now: float) -> None:
        """Count what is missing."""
        _, counted = self._running.pop(started.call.number)
        self._counters[started.call.tenant] += OUTPUT_WEIGHT * (started.call.step.output_tokens - counted)

    def wake_s(self, now: float) -> float:
        """Never: it is always willing."""
        return math.inf

    def _count_output(self, now: float) -> None:
        for number, (started, counted) in self._running.items():
            output = started.call.step.output_tokens
            written = max(0, output - math.ceil((started.end_s - now) * self._decode_per_s))
            if written > counted:
                self._counters[started.call.tenant] += OUTPUT_WEIGHT * (written - counted)
                self._running[number] = (started, written)
