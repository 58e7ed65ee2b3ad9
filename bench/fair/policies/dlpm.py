"""Deficit longest prefix match (Cao et al. 2025, "Locality-aware Fair Scheduling in LLM Serving").

Calls in the order of their cached prefix, longest first; a tenant goes only while its deficit counter is above zero.
It pays uncached input when a call begins and weighted output while it is written. When all who wait are at zero or
below, all who wait get another quantum. It lives in the engine, so it sees the cache as it is. First calls of a program
have the same prefix in the cache, so the oldest of them stands for all. Weight and quantum are the kernel's.
"""

from __future__ import annotations

import math
from collections import deque

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Site
from mains.kernel.tenants import QUANTUM
from mains.kernel.waiting import OUTPUT_WEIGHT

_Group = tuple[str, str | int]


class Dlpm:
    """Who waits, and a deficit counter a tenant."""

    def __init__(self, site: Site) -> None:
        self._cached = site.cached
        self._waiting: dict[int, dict[_Group, deque[Call]]] = {}  # by tenant
        self._deficits: dict[int, float] = {}

    def add(self, call: Call, now: float) -> None:
        """Queue; a tenant that had nothing here starts with no credit and keeps its debt."""
        groups = self._waiting.setdefault(call.tenant, {})
        if not groups:
            self._deficits[call.tenant] = min(self._deficits.get(call.tenant, 0.0), 0.0)
        groups.setdefault(_group(call), deque()).append(call)

    def choose(self, now: float) -> Call | None:
        """The longest cached prefix among the tenants that have credit."""
        tenants = [tenant for tenant, groups in self._waiting.items() if groups]
        if not tenants:
            return None
        richest = max(self._deficits[tenant] for tenant in tenants)
        if richest <= 0:
            rounds = math.floor(-richest / QUANTUM) + 1
            for tenant in tenants:
                self._deficits[tenant] += rounds * QUANTUM
        able = [tenant for tenant in tenants if self._deficits[tenant] > 0]
        heads = [calls[0] for tenant in able for calls in self._waiting[tenant].values()]
        best = min(heads, key=lambda call: (-self._cached(call), call.number))
        groups, group = self._waiting[best.tenant], _group(best)
        groups[group].popleft()
        if not groups[group]:
            del groups[group]
        return best

    def started(self, started: Started) -> None:
        """Pay for what is read."""
        self._deficits[started.call.tenant] -= started.uncached

    def ended(self, started: Started, now: float) -> None:
        """Pay for what was written."""
        self._deficits[started.call.tenant] -= OUTPUT_WEIGHT * started.call.step.output_tokens

    def wake_s(self, now: float) -> float:
        """Never: it is always willing."""
        return math.inf


def _group(call: Call) -> _Group:
    return ("first", call.agent.program) if call.at == 0 else ("later", call.agent.number)
