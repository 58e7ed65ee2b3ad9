"""Public fakes for tests of programs, devices and of Mains itself.

FakeClock      time that moves only when the test says so
CrashProbe     ends the world at the n-th crash point; counts and names them when n is never reached
ScriptedEngine see `engines/scripted.py`
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from mains.engines.scripted import ScriptedEngine

__all__ = ["CrashProbe", "FakeClock", "ScriptedEngine"]


class FakeClock:
    """A clock that stands still until `advance`. Whoever waits is woken in the order of their times."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        """The time, in milliseconds since 1970."""
        return self._now_ms

    async def wait_ms(self, span_ms: int) -> None:
        """Return once the clock was moved by `span_ms`."""
        if span_ms <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._now_ms + span_ms, self._count, future))
        await future

    def advance(self, span_ms: int) -> None:
        """Move the clock and wake whose time has come."""
        self._now_ms += span_ms
        while self._sleepers and self._sleepers[0][0] <= self._now_ms:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)


class CrashProbe:
    """A probe that calls `crash` at the crash point with number `target` (0 is the first), and names all it passes."""

    def __init__(self, target: int, crash: Callable[[str], None]) -> None:
        self._target = target
        self._crash = crash
        self.passed: list[str] = []

    def at(self, point: str) -> None:
        """The kernel stands at `point`."""
        self.passed.append(point)
        if len(self.passed) - 1 == self._target:
            self._crash(point)
