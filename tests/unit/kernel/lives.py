"""A home that lives several times: for tests that are driven from outside any event loop, by Hypothesis's machines.

boot(), halt()      a life begins, on a copy of what the one before has left; it ends in order
crash()             it is killed: the next life begins with the files as they stood meanwhile
run(work)           what a coroutine gives, in the event loop of this home, within a time
close()             nothing is left
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from mains.kernel.desk import Desk
from mains.testing import FakeClock

T = TypeVar("T")
_PATIENCE_S = 20.0


class Lives:
    """See the module's header. `prepare` writes into each life's folder; `opened` opens it."""

    def __init__(
        self, now_ms: int, prepare: Callable[[Path], None], opened: Callable[[Path], AbstractAsyncContextManager[Desk]]
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock(now_ms)
        self.home: Path
        self.desk: Desk
        self._prepare = prepare
        self._opened = opened
        self._folders: list[tempfile.TemporaryDirectory[str]] = []
        self._life: AbstractAsyncContextManager[Desk] | None = None

    @property
    def up(self) -> bool:
        """Whether a kernel runs."""
        return self._life is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives. Raises TimeoutError."""

        async def limited() -> T:
            async with asyncio.timeout(_PATIENCE_S):
                return await work

        return self.loop.run_until_complete(limited())

    def boot(self, before: Path | None = None) -> None:
        """Begin a life: a first one, or with the files of the one before."""
        self._folders.append(folder := tempfile.TemporaryDirectory())
        self.home = Path(folder.name) / "home"
        if before is None:
            self.home.mkdir()
        else:
            shutil.copytree(before, self.home)
        self._prepare(self.home)
        self._life = self._opened(self.home)
        self.desk = self.run(self._life.__aenter__())

    def halt(self) -> None:
        """End a life in order."""
        if self._life is not None:
            self.run(self._life.__aexit__(None, None, None))
            self._life = None
        self.clock.forget()

    def crash(self) -> None:
        """What a killed kernel leaves is what stands in its files while it runs."""
        with tempfile.TemporaryDirectory() as kept:
            left = Path(kept) / "home"
            shutil.copytree(self.home, left, ignore=shutil.ignore_patterns("*-shm", "*.lock", "*.sock", "memory.db*"))
            self.halt()
            self.boot(left)

    def close(self) -> None:
        """Leave nothing behind; for the end, also after a failure."""
        for folder in self._folders:
            folder.cleanup()
        self.loop.close()
