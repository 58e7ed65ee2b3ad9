"""How far the service of two tenants drifts apart while both have calls waiting, in weighted tokens.

Service counts when a call ends, all at once. A span of a pair lasts from the moment when both have a call waiting to
the moment when one has none; its gap is the largest difference of what the two were served over any part of it. That
is the measure of the VTC paper, over every interval instead of some.
"""

from __future__ import annotations


class _Span:
    """The difference of a pair since their span began, and its extremes."""

    __slots__ = ("high", "low", "now")

    def __init__(self) -> None:
        self.now = self.low = self.high = 0

    def add(self, tokens: int) -> None:
        """One side was served."""
        self.now += tokens
        self.low, self.high = min(self.low, self.now), max(self.high, self.now)


class Gaps:
    """The worst gap of every pair of tenants so far."""

    def __init__(self) -> None:
        self.worst: dict[tuple[int, int], int] = {}
        self._waiting: dict[int, int] = {}  # tenant -> calls that wait
        self._spans: dict[tuple[int, int], _Span] = {}

    def queued(self, tenant: int) -> None:
        """One more call of the tenant waits."""
        if tenant not in self._waiting:
            for other in self._waiting:
                self._spans[_pair(tenant, other)] = _Span()
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def left(self, tenant: int) -> None:
        """A call of the tenant got its slot."""
        self._waiting[tenant] -= 1
        if self._waiting[tenant]:
            return
        del self._waiting[tenant]
        for other in self._waiting:
            self._close(_pair(tenant, other))

    def served(self, tenant: int, tokens: int) -> None:
        """A call of the tenant ended."""
        if tenant in self._waiting:
            for other in self._waiting:
                if other != tenant:
                    self._spans[_pair(tenant, other)].add(tokens if tenant < other else -tokens)

    def close(self) -> None:
        """The run is over."""
        for pair in list(self._spans):
            self._close(pair)

    def _close(self, pair: tuple[int, int]) -> None:
        span = self._spans.pop(pair)
        self.worst[pair] = max(self.worst.get(pair, 0), span.high - span.low)


def _pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)
