"""Time as the kernel sees it: passed in, so that tests own it.

`now_ms` is wall time in milliseconds since 1970 (it may jump: due times are compared with `<=`, never with a
difference that must be positive). `wait_ms` returns after a span of monotonic time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the kernel asks of time."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970-01-01 UTC."""
        ...

    async def wait_ms(self, span_ms: int) -> None:
        """Return after `span_ms` milliseconds (at once for 0 or less)."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def wait_ms(self, span_ms: int) -> None:
        await asyncio.sleep(max(0, span_ms) / 1_000)
