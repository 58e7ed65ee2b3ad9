"""How long a stream may say nothing: a block that is cut off when no bytes come.

    async with Silence(first_byte_s, idle_s) as silence:
        ...
        silence.heard(flowing=...)      bytes came; from the model's first output on the shorter limit holds
        silence.over()                  nothing more needs to come

Raises SilentError out of the block. None is no limit. Before the first output the longer limit holds even when bytes
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

    def __init__(self, first_byte_s: float | None, idle_s: float | None) -> None:
        self._first_byte_s = first_byte_s
        self._idle_s = idle_s
        self._limit_s = first_byte_s
        self._timeout = asyncio.timeout(first_byte_s)

    def heard(self, *, flowing: bool) -> None:
        """Bytes came. `flowing`: the model has begun to write."""
        self._limit_s = self._idle_s if flowing else self._first_byte_s
        loop = asyncio.get_running_loop()
        self._timeout.reschedule(None if self._limit_s is None else loop.time() + self._limit_s)

    def over(self) -> None:
        """All that counts is here: from now on silence is no fault."""
        self._timeout.reschedule(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if not self._timeout.expired():
                raise
            raise SilentError(f"sent nothing for {self._limit_s:g} s") from None
