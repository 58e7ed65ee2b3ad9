"""The desk for memory: what stands in the frame of a process, what it was shown, and what the machine holds.

A part of `desk.Desk`. Everything is read in a thread, as of one moment, and changes nothing.
"""

from __future__ import annotations

import asyncio

from mains.kernel import contrast, lookback, pagetable, sharing
from mains.kernel.contrast import Contrast
from mains.kernel.lookback import Seen
from mains.kernel.main import Kernel
from mains.kernel.pagetable import PageTable
from mains.kernel.sharing import Memory


class MemoryDesk:
    """What may be asked about memory. Raises NotFoundError, UsageError."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def mem(self, pid: int) -> PageTable:
        """The page table of a process, and how its memory did until now."""
        return await asyncio.to_thread(pagetable.table, self._kernel.journal, self._kernel.settings, pid)

    async def memory(self) -> Memory:
        """The memory of the whole home."""
        return await asyncio.to_thread(sharing.memory, self._kernel.journal)

    async def seen(self, pid: int, at: int) -> Seen:
        """What the model of a process was shown in the last call until event `at`."""
        return await asyncio.to_thread(lookback.seen, self._kernel.journal, pid, at)

    async def diff(self, pid: int, other: int, *, full: bool = False) -> Contrast:
        """Where the contexts of two processes part; with the whole texts behind that when `full`."""
        return await asyncio.to_thread(contrast.contrast, self._kernel.journal, pid, other, full=full)
