"""Room: a number of tokens that calls share. Who comes first is served first; nobody is passed by a smaller one.

The slots of the embedded engine share one KV cache. When it overflows, llama.cpp fails every call in it, so a call is
let in only when the cache can hold it beside the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Room:
    """`total` tokens of room. Belongs to one event loop."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def taken(self, tokens: int) -> AsyncIterator[None]:
        """Hold `tokens` of room (at most all of it); waits for it. The caller bounds the wait."""
        wanted = max(0, min(tokens, self._total))
        await self._wait(wanted)
        try:
            yield
        finally:
            self._give(wanted)

    async def _wait(self, wanted: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((wanted, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give(wanted)  # let in and cancelled in the same moment
            else:
                self._queue.remove((wanted, turn))
                self._admit()
            raise

    def _give(self, tokens: int) -> None:
        self._free += tokens
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._queue[0][0] <= self._free:
            wanted, turn = self._queue.popleft()
            self._free -= wanted
            if turn.cancelled():
                self._free += wanted
            else:
                turn.set_result(None)
