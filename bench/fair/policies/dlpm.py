"""Deficit longest prefix match (Cao et al. 2025, "Locality-aware Fair Scheduling in LLM Serving").

Calls in the order of their cached prefix, longest first; a tenant goes only while its deficit counter is above zero.
It pays uncached input when a call begins and weighted output while it is written. When all who wait are at zero or
below, all who wait get another quantum. It lives in the engine, so it sees the cache as it is.
"""

from __future__ import annotations

import math

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import OUTPUT_WEIGHT, Site

QUANTUM = 8_192  # weighted tokens


class Dlpm:
    """Who waits, and a deficit counter a tenant."""

    def __init__(self, site: Site) -> None:
        self._cached = site.cached
        self._waiting: dict[int, dict[int, Call]] = {}  # tenant -> call number -> call
        self._deficits: dict[int, float] = {}

    def add(self, call: Call, now: float) -> None:
        """Queue; a tenant that had nothing here starts with no credit and keeps its debt."""
        calls = self._waiting.setdefault(call.tenant, {})
        if not calls:
            self._deficits[call.tenant] = min(self._deficits.get(call.tenant, 0.0), 0.0)
        calls[call.number] = call

    def choose(self, now: float) -> Call | None:
        """The longest cached prefix among the tenants that have credit."""
        tenants = [tenant for tenant, calls in self._waiting.items() if calls]
        if not tenants:
            return None
        richest = max(self._deficits[tenant] for tenant in tenants)
        if richest <= 0:
            rounds = math.floor(-richest / QUANTUM) + 1
            for tenant in tenants:
                self._deficits[tenant] += rounds * QUANTUM
        able = [call for tenant in tenants if self._deficits[tenant] > 0 for call in self._waiting[tenant].values()]
        best = min(able, key=lambda call: (-self._cached(call), call.number))
        return self._waiting[best.tenant].pop(best.number)

    def started(self, started: Started) -> None:
        """Pay for what is read."""
        self._deficits[started.call.tenant] -= started.uncached

    def ended(self, started: Started, now: float) -> None:
        """Pay for what was written."""
        self._deficits[started.call.tenant] -= OUTPUT_WEIGHT * started.call.step.output_tokens

    def wake_s(self, now: float) -> float:
        """Never: it is always willing."""
        return math.inf
