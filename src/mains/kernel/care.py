"""Care: what a kernel does about its own history while it runs. Removes, erases, prunes once a day.

    async with Care(kernel, clock) as care:
        await care.remove([3])                  an ended process and all below it
        await care.prune(older_than_ms)         everybody who ended before

All of it goes through the kernel's orders, in small commits, so that turns go on between them. What a crash left
half erased is erased after the next boot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from mains.errors import DiskFullError, JournalError, LimitError, MainsError
from mains.kernel import retention
from mains.kernel.clock import Clock
from mains.kernel.main import Kernel
from mains.kernel.ports import Removal

T = TypeVar("T")
Forget = Callable[[Collection[int]], Awaitable[None]]
"""Makes the engines keep nothing of some processes. Raises ConfigError when a file of theirs cannot be removed."""
DAY_MS = 86_400_000
_AGAIN_MS = 60_000  # after a full disk, or too many orders


class Care:
    """The care of one kernel's home. Enter it when the kernel has booted, leave it before the kernel halts."""

    def __init__(self, kernel: Kernel, clock: Clock, forget: Forget | None = None) -> None:
        self._kernel = kernel
        self._clock = clock
        self._settings = kernel.settings
        self._forget = forget
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._daily = self._start(self._every_day())
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._daily.done() and not self._daily.cancelled():
            self._daily.result()  # a bug of ours is not lost

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name="care")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def remove(self, pids: Sequence[int]) -> Removal:
        """Remove ended processes with all below them. Raises NotFoundError, UsageError: then nobody is removed."""
        return await self._carry_out(await asyncio.to_thread(retention.doomed, self._kernel.journal, pids))

    async def prune(self, older_than_ms: int, *, dry_run: bool = False) -> Removal:
        """Remove every process that ended so long ago, with everybody below it (`dry_run`: only say which)."""
        before_ms = self._clock.now_ms() - older_than_ms
        due = await asyncio.to_thread(retention.due, self._kernel.journal, before_ms)
        return Removal(due) if dry_run else await self._carry_out(due)

    async def _carry_out(self, pids: Sequence[int]) -> Removal:
        """Remove and erase these. What takes longer than half of `request_timeout_s` goes on without its caller."""
        task = self._start(self._remove(pids, 0))
        await asyncio.wait({task}, timeout=self._settings.request_timeout_s / 2)
        return Removal(task.result()) if task.done() else Removal(list(pids), erased=False)

    async def erase(self) -> bool:
        """Erase what was removed; whether that is done already, else it goes on without its caller."""
        task = self._start(self._erase(0))
        await asyncio.wait({task}, timeout=self._settings.request_timeout_s / 2)
        if task.done():
            task.result()
        return task.done()

    async def _remove(self, pids: Sequence[int], pause_ms: int) -> list[int]:
        """Remove those who may still be, then erase, in small commits; who was removed."""
        removed: list[int] = []
        for start in range(0, len(pids), self._settings.erase_rows_max):
            chunk = pids[start : start + self._settings.erase_rows_max]
            if self._forget is not None:  # first: after a crash in between, who is left can be removed again
                await self._forget(chunk)
            removed += await self._kernel.order(partial(retention.remove, pids=chunk), "rm")
            await self._clock.wait_ms(pause_ms)
        await self._erase(pause_ms)
        return removed

    async def _erase(self, pause_ms: int) -> None:
        most = self._settings.erase_rows_max
        while await self._kernel.order(lambda tx: retention.erase(tx, most), "erase"):
            await self._clock.wait_ms(pause_ms)
        await self._forget_gone()

    async def _forget_gone(self) -> None:
        """Let nothing be left in the search index of what was erased, before a crash too. Raises MainsError."""
        search, documents = self._kernel.search, self._kernel.documents
        if search is not None:
            spaces = await search.spaces()
            if gone := await asyncio.to_thread(documents.gone, spaces):
                await search.forget(gone)

    async def erase_forgotten(self) -> None:
        """Erase the text of notes that were forgotten or replaced."""
        most = self._settings.erase_rows_max
        while await self._kernel.order(lambda tx: retention.erase_forgotten(tx, most), "erase"):
            await self._clock.wait_ms(0)

    # by itself

    async def _every_day(self) -> None:
        """Go on with what a crash cut off; then prune, a day after the last time, again and again."""
        while not self._kernel.halted.is_set():
            try:
                if self._kernel.journal.rows("removed_next"):
                    await self._erase(self._settings.erase_pause_ms)
                await self._forget_gone()
                await self._clock.wait_ms(min(max(0, self._next_ms() - self._clock.now_ms()), DAY_MS))
                await self._prune_old()
            except (DiskFullError, LimitError):
                await self._clock.wait_ms(_AGAIN_MS)
            except JournalError:
                return  # the kernel halts, and says why
            except MainsError:
                await self._clock.wait_ms(DAY_MS)  # what cannot be erased is told to whoever asks for it

    def _next_ms(self) -> int:
        rows = self._kernel.journal.rows("counter_get", "pruned_ms")
        return int(rows[0][0]) + DAY_MS if rows else 0

    async def _prune_old(self) -> None:
        pause_ms, most = self._settings.erase_pause_ms, self._settings.erase_rows_max
        before_ms = self._clock.now_ms() - self._settings.retention_days * DAY_MS
        await self._kernel.order(retention.begin_prune, "prune")
        await self._remove(await asyncio.to_thread(retention.due, self._kernel.journal, before_ms), pause_ms)
        while await self._kernel.order(lambda tx: retention.index(tx, most * 10), "prune"):
            await self._clock.wait_ms(pause_ms)
        await self.erase_forgotten()
        while await self._kernel.order(lambda tx: retention.erase_old(tx, before_ms, most), "prune"):
            await self._clock.wait_ms(pause_ms)
        while await self._kernel.order(lambda tx: retention.erase_notes(tx, before_ms, most), "prune"):
            await self._clock.wait_ms(pause_ms)
