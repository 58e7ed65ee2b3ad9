"""Care: what a kernel does about its own history while it runs. Removes, erases, prunes once a day.

    async with Care(kernel, clock) as care:
        await care.remove([3])                  an ended process and all below it
        await care.prune(older_than_ms)         everybody who ended before

All of it goes through the kernel's orders, in small commits, so that turns go on between them. What a crash left
half erased is erased after the next boot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Self

from mains.errors import DiskFullError, JournalError, LimitError
from mains.kernel import retention
from mains.kernel.clock import Clock
from mains.kernel.main import Kernel
from mains.kernel.ports import Removal
from mains.kernel.tx import Tx

DAY_MS = 86_400_000
_AGAIN_MS = 60_000  # after a full disk, or too many orders


class Care:
    """The care of one kernel's home. Enter it when the kernel has booted, leave it before the kernel halts."""

    def __init__(self, kernel: Kernel, clock: Clock) -> None:
        self._kernel = kernel
        self._clock = clock
        self._settings = kernel.settings
        self._erasing: asyncio.Task[None] | None = None
        self._daily: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._daily = asyncio.create_task(self._every_day(), name="care")
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = [task for task in (self._daily, self._erasing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def remove(self, pids: Sequence[int]) -> Removal:
        """Remove ended processes with all below them. Raises NotFoundError, UsageError: then nobody is removed."""
        most = self._settings.erase_rows_max

        def first(tx: Tx) -> tuple[list[int], list[int]]:
            every = retention.doomed(tx, pids)
            return every, retention.remove(tx, every[:most])

        every, removed = await self._kernel.order(first, "rm")
        removed = removed + await self._remove(every[most:])
        return Removal(removed, await self._erase())

    async def prune(self, older_than_ms: int, *, dry_run: bool = False) -> Removal:
        """Remove every process that ended so long ago, with everybody below it (`dry_run`: only say which)."""
        due = await asyncio.to_thread(retention.due, self._kernel.journal, self._clock.now_ms() - older_than_ms)
        if dry_run:
            return Removal(due)
        return Removal(await self._remove(due), await self._erase())

    async def _remove(self, pids: Sequence[int], pause_ms: int = 0) -> list[int]:
        """Remove those who may still be, in small commits."""
        removed: list[int] = []
        for start in range(0, len(pids), self._settings.erase_rows_max):
            chunk = pids[start : start + self._settings.erase_rows_max]
            removed += await self._kernel.order(partial(retention.remove, pids=chunk), "rm")
            await self._clock.wait_ms(pause_ms)
        return removed

    async def _erase(self) -> bool:
        """Erase what was removed; whether that was done within half of `request_timeout_s`. Else it goes on alone."""
        if self._erasing is None or self._erasing.done():
            self._erasing = asyncio.create_task(self._erase_all(0), name="erase")
        await asyncio.wait({self._erasing}, timeout=self._settings.request_timeout_s / 2)
        if self._erasing.done():
            self._erasing.result()
            return True
        return False

    async def _erase_all(self, pause_ms: int) -> None:
        most = self._settings.erase_rows_max
        while await self._kernel.order(lambda tx: retention.erase(tx, most), "erase"):
            await self._clock.wait_ms(pause_ms)

    # by itself

    async def _every_day(self) -> None:
        """Go on with what a crash cut off; then prune, a day after the last time, again and again."""
        while not self._kernel.halted.is_set():
            try:
                if self._kernel.journal.rows("removed_next"):
                    await self._erase_all(self._settings.erase_pause_ms)
                await self._clock.wait_ms(min(max(0, self._next_ms() - self._clock.now_ms()), DAY_MS))
                await self._prune_old()
            except (DiskFullError, LimitError):
                await self._clock.wait_ms(_AGAIN_MS)
            except JournalError:
                return  # the kernel halts, and says why

    def _next_ms(self) -> int:
        rows = self._kernel.journal.rows("counter_get", "pruned_ms")
        return int(rows[0][0]) + DAY_MS if rows else 0

    async def _prune_old(self) -> None:
        pause_ms, most = self._settings.erase_pause_ms, self._settings.erase_rows_max
        before_ms = self._clock.now_ms() - self._settings.retention_days * DAY_MS
        await self._kernel.order(retention.begin_prune, "prune")
        await self._remove(await asyncio.to_thread(retention.due, self._kernel.journal, before_ms), pause_ms)
        await self._erase_all(pause_ms)
        while await self._kernel.order(lambda tx: retention.erase_notes(tx, before_ms, most), "prune"):
            await self._clock.wait_ms(pause_ms)
