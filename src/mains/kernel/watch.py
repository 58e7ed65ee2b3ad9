"""Who wants to know: watchers of what happens, and waits for a process to end or to get stuck.

Each watcher has a bounded backlog; one that is too slow is cut off and told.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable

from mains.errors import LimitError
from mains.kernel.ports import Notice
from mains.kernel.process import Process, State
from mains.settings import Settings

_CUT = Notice(kind="cut", pid=0, text="this watcher was too slow (watcher_events_max)")
_END = Notice(kind="halt", pid=0, text="the kernel halts")


class Watchers:
    """Everybody who watches one process (`pid`) or all (0), and who waits for a change of one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._queues: dict[int, set[asyncio.Queue[Notice]]] = defaultdict(set)
        self._count = 0

    def commit(self, notices: Iterable[Notice]) -> None:
        """Tell what a commit did."""
        if self._count:
            for notice in notices:
                self.tell(notice)

    def tell(self, notice: Notice) -> None:
        """Tell one thing to those who watch its process, or all."""
        if not self._count:
            return
        for pid in {notice.pid, 0}:  # an event of the home (0) is told once
            for queue in list(self._queues.get(pid, ())):
                self._put(queue, notice)

    def _put(self, queue: asyncio.Queue[Notice], notice: Notice) -> None:
        if queue.qsize() >= self._settings.watcher_events_max:
            while not queue.empty():
                queue.get_nowait()
            notice = _CUT
        queue.put_nowait(notice)

    async def watch(self, pid: int) -> AsyncIterator[Notice]:
        """What happens from now on. Ends with a notice `halt` or `cut`. Raises LimitError when too many watch."""
        if self._count >= self._settings.watchers_max:
            raise LimitError(f"{self._count} watchers are at it already (watchers_max)")
        queue: asyncio.Queue[Notice] = asyncio.Queue()
        self._queues[pid].add(queue)
        self._count += 1
        try:
            while True:
                notice = await queue.get()
                yield notice
                if notice is _CUT or notice is _END:
                    return
        finally:
            self._count -= 1
            self._queues[pid].discard(queue)
            if not self._queues[pid]:
                del self._queues[pid]

    def close(self) -> None:
        """Tell everybody that it is over."""
        for queues in list(self._queues.values()):
            for queue in queues:
                self._put(queue, _END)


class Waits:
    """Who waits until a process has ended, or may be stuck."""

    def __init__(self) -> None:
        self._waits: dict[int, set[asyncio.Future[None]]] = defaultdict(set)

    def commit(self, changed: Iterable[Process]) -> None:
        """Wake those whose process has ended; and those above one that ended, stopped or waits for children.

        They may be stuck now: what else they waited for has ended, or was stuck before they began to wait for it.
        """
        if not self._waits:
            return
        for p in changed:
            if p.state in (State.EXITED, State.STOPPED) or p.reason == "child":
                for pid in p.accounts:
                    self._wake(self._waits.get(pid, set()))

    def wake_all(self) -> None:
        """Make everybody look again."""
        for futures in self._waits.values():
            self._wake(futures)

    @staticmethod
    def _wake(futures: set[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    def ticket(self, pid: int) -> asyncio.Future[None]:
        """A future that is done when it is time to look at process `pid` again. Give it back with `discard`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waits[pid].add(future)
        return future

    def discard(self, pid: int, ticket: asyncio.Future[None]) -> None:
        """Forget a ticket."""
        self._waits[pid].discard(ticket)
        if not self._waits[pid]:
            del self._waits[pid]
