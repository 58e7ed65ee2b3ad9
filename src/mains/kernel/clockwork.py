"""The clockwork: sleep until something is due, or until something earlier comes up.

Naps are short (`NAP_MS_MAX`): the wall clock of a machine that slept has jumped, and timers are due that no monotonic
wait would notice.
"""

from __future__ import annotations

import asyncio

from mains.kernel.clock import Clock

NAP_MS_MAX = 15_000


class Clockwork:
    """One sleeper over a clock, and the way to wake it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._moved = asyncio.Event()
        self._until_ms: int | None = None
        self._seen_ms = 0
        self.set_back = False  # whether the clock showed less at the last look than at the one before

    def expect(self, due_ms: int) -> None:
        """Something is due at `due_ms`: wake the sleeper if it would sleep longer."""
        if self._until_ms is None or due_ms < self._until_ms:
            self._moved.set()

    def begin(self) -> int:
        """Start a look; the time. What moves from now on ends the next sleep."""
        self._moved.clear()
        now_ms = self._clock.now_ms()
        self.set_back, self._seen_ms = now_ms < self._seen_ms, now_ms
        return now_ms

    async def sleep(self, now_ms: int, dues_ms: list[int]) -> None:
        """Sleep until the first of `dues_ms`, a nap at most."""
        self._until_ms = min([now_ms + NAP_MS_MAX, *dues_ms])
        looks = [
            asyncio.create_task(self._moved.wait()),
            asyncio.create_task(self._wait_until(self._until_ms)),
        ]
        try:
            await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for look in looks:
                look.cancel()

    async def _wait_until(self, due_ms: int) -> None:
        """The span is taken when the wait begins: the clock may have moved since the look."""
        await self._clock.wait_ms(due_ms - self._clock.now_ms())
