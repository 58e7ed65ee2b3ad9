"""How long a stream may say nothing, and how long it may take: a block that is cut off when no bytes come, or too late.

    async with Silence(first_byte_s, idle_s, total_s) as silence:
        ...
        silence.heard(flowing=...)      bytes came; from the model's first output on the shorter limit holds
        silence.over()                  nothing more needs to come

Raises SilentError out of the block, TimeoutError when `total_s` is over. None is no limit. One timer for both: there is
one for each call that waits. Before the first output the longer limit holds even when bytes
come, because servers send headers and signs of life while they still read the prompt.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class SilentError(Exception):
    """Nothing came for too long; the text says for how long."""


class Silence:
    """See the module's header. Times are seconds."""

    __slots__ = ("_end", "_first_byte_s", "_idle_s", "_limit_s", "_timeout")

    def __init__(self, first_byte_s: float | None, idle_s: float | None, total_s: float | None = None) -> None:
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._end = None if total_s is None else asyncio.get_running_loop().time() + total_s
        self._limit_s = first_byte_s
        self._timeout = asyncio.timeout_at(self._until())

    def heard(self, *, flowing: bool) -> None:
        """Bytes came. `flowing`: the model has begun to write."""
        self._limit_s = self._idle_s if flowing else self._first_byte_s
        self._timeout.reschedule(self._until())

    def over(self) -> None:
        """All that counts is here: from now on silence is no fault."""
        self._limit_s = None
        self._timeout.reschedule(self._end)

    def _until(self) -> float | None:
        """When the block is cut off if nothing more comes, by the clock of the event loop."""
        if self._limit_s is None:
            return self._end
        silent = asyncio.get_running_loop().time() + self._limit_s
        return silent if self._end is None else min(silent, self._end)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if not self._timeout.expired() or self._timeout.when() == self._end:
                raise
            raise SilentError(f"sent nothing for {self._limit_s:g} s") from None
