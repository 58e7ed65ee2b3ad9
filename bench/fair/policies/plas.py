"""Program-level attained service (Luo et al. 2025, "Autellix"), without its preemption of running calls.

A call's priority is the engine time that its program's earlier calls have had, in bands that double; within a band
first come, first served. A program that has waited many times longer than it was served goes to the first band.
The paper leaves the numbers to the operator: bands begin at one second here, and the ratio is 20.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Quiet, Site

FIRST_BAND_S = 1.0
STARVING = 20.0  # wait / service


class Plas(Quiet):
    """A heap a band, and what each program has had."""

    def __init__(self, site: Site) -> None:
        self._bands: dict[int, list[tuple[int, Call]]] = defaultdict(list)
        self._served_s: dict[int, float] = defaultdict(float)
        self._waited_s: dict[int, float] = defaultdict(float)

    def add(self, call: Call, now: float) -> None:
        """Into the band of its program."""
        heapq.heappush(self._bands[_band(self._served_s[call.agent.number])], (call.number, call))

    def choose(self, now: float) -> Call | None:
        """The head of the first band that has one; who starves goes before all."""
        heads = [(band, self._bands[band][0][1]) for band in sorted(self._bands)]
        if not heads:
            return None
        starving = [(band, call) for band, call in heads if band and self._starves(call, now)]
        band, _ = min(starving, key=lambda one: one[1].number) if starving else heads[0]
        _, call = heapq.heappop(self._bands[band])
        if not self._bands[band]:
            del self._bands[band]
        self._waited_s[call.agent.number] += now - call.ready_s
        return call

    def ended(self, started: Started, now: float) -> None:
        """The program has had this."""
        self._served_s[started.call.agent.number] += now - started.began_s

    def _starves(self, call: Call, now: float) -> bool:
        waited = self._waited_s[call.agent.number] + now - call.ready_s
        return waited >= STARVING * self._served_s[call.agent.number]


def _band(served_s: float) -> int:
    band = 0
    while served_s >= FIRST_BAND_S * 2**band:
        band += 1
    return band
