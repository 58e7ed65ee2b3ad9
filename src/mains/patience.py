"""Patience: a time limit that stands still while somebody thinks.

async with Patience(120) as patience:      TimeoutError after 120 s,
    ...                                    but `with patience.thinking():` elsewhere stops its clock
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType


class Patience:
    """See the module's header. `limit_s` is in seconds; infinite: there is no limit. It is used once."""

    def __init__(self, limit_s: float) -> None:
        self._left_s = limit_s
        self._thinkers = 0
        self._since_s = 0.0
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> Patience:
        self._timeout = await asyncio.timeout(None).__aenter__()
        self._go()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timeout is not None
        timeout, self._timeout = self._timeout, None
        await timeout.__aexit__(kind, error, trace)  # it raises TimeoutError when that is over

    @contextlib.contextmanager
    def thinking(self) -> Iterator[None]:
        """Somebody thinks: the clock stands still until the last of them has done so."""
        self._thinkers += 1
        if self._thinkers == 1:
            self._stop()
        try:
            yield
        finally:
            self._thinkers -= 1
            self._go()

    def _go(self) -> None:
        if self._timeout is None or self._timeout.expired() or self._thinkers or self._left_s == float("inf"):
            return
        self._since_s = asyncio.get_running_loop().time()
        self._timeout.reschedule(self._since_s + self._left_s)

    def _stop(self) -> None:
        if self._timeout is None or self._timeout.expired() or self._timeout.when() is None:
            return
        self._left_s = max(0.0, self._left_s - (asyncio.get_running_loop().time() - self._since_s))
        self._timeout.reschedule(None)
