"""Time that moves only when the test says so.

The clock has two hands, as a machine has: wall time, which people and the network set (`jump`), and the time that
passes (`advance`), by which waits are measured. A jump wakes nobody.
"""

from __future__ import annotations

import asyncio
import heapq


class FakeClock:
    """A clock that stands still until `advance`. Whoever waits is woken in the order of their times."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = now_ms
        self._passed_ms = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        """The time, in milliseconds since 1970."""
        return self._now_ms

    def passed_ms(self) -> int:
        """What has passed since the clock was made, in milliseconds; jumps do not count."""
        return self._passed_ms

    async def wait_ms(self, span_ms: int) -> None:
        """Return once the clock was moved by `span_ms`."""
        if span_ms <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._passed_ms + span_ms, self._count, future))
        await future

    def advance(self, span_ms: int) -> None:
        """Move the clock and wake whose time has come."""
        self._now_ms += span_ms
        self._passed_ms += span_ms
        while self._sleepers and self._sleepers[0][0] <= self._passed_ms:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def next_ms(self) -> int | None:
        """How long the next of those who wait has to wait."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] - self._passed_ms if self._sleepers else None

    def jump(self, span_ms: int) -> None:
        """Set the wall clock, forward or (below zero) back: no time passes."""
        self._now_ms += span_ms

    def forget(self) -> None:
        """Whoever waits is gone: a world has ended, and its event loop with it."""
        self._sleepers.clear()
