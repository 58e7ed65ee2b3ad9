"""The search index of a home's memory: asked on the event loop, at work in a thread of its own.

    hits = await index.recall(spaces, query, k)     the best documents
    index.touch(space)                              it has grown: index it when there is leisure
    await index.forget(spaces)                      nothing of these is left in the file
    await index.close()

Work goes step by step (`finder.py`), and the steps of all who wait take turns: a space that is long to index delays
those who recall in it, and everybody else by a step. What was touched is indexed while nobody recalls, with pauses
four times as long as the work, so that the rest of the daemon has the processor. Nothing here writes to the journal,
or waits for it. Every wait ends after `wait_s`; at most `recalls_max` wait at once, and `touched_max` spaces are
remembered (what is not remembered is indexed when somebody recalls in it).
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mains.errors import DeviceError, LimitError
from mains.search.finder import Answer, Finder
from mains.search.meaning import Meaning
from mains.search.source import Hit, Source
from mains.search.store import StoreError
from mains.search.vectors import Embedder

WAIT_S = 30.0
RECALLS_MAX = 256
TOUCHED_MAX = 10_000
HITS_MAX = 100
PAUSE_S_MAX = 0.2
PAUSES = 4  # times as long as the work: at leisure the index takes a fifth of the interpreter at most
CLOSE_S = 5.0
_END: Any = object()


class IndexState(NamedTuple):
    """For a person: why the file (`fault`) or the vectors are not used (empty: all is well), and what waits."""

    fault: str
    vectors: str
    touched: int
    recalls: int


class Index:
    """See the module's header. Made on, and used by, one event loop; the thread begins with the first use."""

    def __init__(
        self,
        path: Path,
        source: Source,
        *,
        wait_s: float = WAIT_S,
        recalls_max: int = RECALLS_MAX,
        touched_max: int = TOUCHED_MAX,
        embedder: Embedder | None = None,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self._path = path
        self._finder = Finder(path, source, connect)
        self._meaning = Meaning(embedder, self._finder, self._call)
        self._wait_s = wait_s
        self._recalls_max = recalls_max
        self._touched_max = touched_max
        self._thread = ThreadPoolExecutor(1, "mains-memory")
        self._touched: dict[str, int] = {}  # and which touch it was
        self._touches = 0
        self._tending: asyncio.Task[None] | None = None
        self._recalls = 0
        self._leisure = asyncio.Event()
        self._leisure.set()
        self._fault = ""
        self._closed = False

    def state(self) -> IndexState:
        """How it stands."""
        return IndexState(self._finder.fault or self._fault, self._meaning.fault, len(self._touched), self._recalls)

    async def recall(self, spaces: Sequence[tuple[str, int | None]], query: str, k: int) -> list[Hit]:
        """The best `k` documents (at most HITS_MAX; one of each page) of these spaces, best first.

        A space comes with the position at which it ends for the caller (None: it does not). Raises LimitError (too many
        wait), DeviceError (it takes too long: the next try goes on from there; or the file cannot be written and there
        is too much to scan), and what the source raises.
        """
        if self._recalls >= self._recalls_max:
            raise LimitError(f"memory: {self._recalls} searches wait already", hint="try again later")
        reach: dict[str, int | None] = {}
        for space, until in spaces:
            known = reach.get(space, -1)
            reach[space] = None if until is None or known is None else max(until, known)
        self._recalls += 1
        self._leisure.clear()
        try:
            meant = await self._meaning.of_query(query)
            steps = self._finder.recall(reach, query, min(k, HITS_MAX), meant)
            answer: Answer = await self._run(steps, "search")
        except DeviceError:
            for space in reach:
                self.touch(space)
            raise
        finally:
            self._recalls -= 1
            if not self._recalls:
                self._leisure.set()
        for space in answer.scanned:
            self.touch(space)
        return answer.hits

    def touch(self, space: str) -> None:
        """A space has grown: index it when there is leisure."""
        if self._closed or (len(self._touched) >= self._touched_max and space not in self._touched):
            return
        self._touches += 1
        self._touched[space] = self._touches
        if self._tending is None or self._tending.done():
            self._tending = asyncio.get_running_loop().create_task(self._tend(), name="memory index")

    async def spaces(self) -> list[str]:
        """The spaces of which something is in the file."""
        names: list[str] = await self._call(self._finder.names)
        return names

    async def forget(self, spaces: Sequence[str]) -> None:
        """Remove these spaces and overwrite what they had in the file.

        Forget after the source has lost them: what it still has may be indexed again. Raises DeviceError when they are
        still in the file.
        """
        for space in spaces:
            self._touched.pop(space, None)
        try:
            await self._run(self._finder.forget(spaces), "forget")
        except StoreError as error:
            text = f"memory: {len(spaces)} spaces are still in the index: {error}"
            raise DeviceError(text, hint=f"let {self._path.parent} be written, or remove {self._path}") from error

    async def close(self) -> None:
        """End the thread. What was being indexed goes on from there after the next start."""
        if self._closed:
            return
        self._closed = True
        self._touched.clear()
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait({self._tending})
        closing = self._thread.submit(self._finder.close)
        self._thread.shutdown(wait=False)
        await asyncio.wait({asyncio.wrap_future(closing)}, timeout=CLOSE_S)

    # ------------------------------------------------------------------------------------------------------- steps

    async def _run(self, steps: Iterator[Any], what: str) -> Any:
        """Go through the steps; the value of the last."""
        value = step = None
        try:
            async with asyncio.timeout(self._wait_s):
                while step is not _END:
                    value = step
                    if self._closed:
                        raise DeviceError("memory: the index is closed")
                    step = await self._step(steps)
        except TimeoutError:
            text = f"memory: the {what} was not over within {self._wait_s:g} s; indexing goes on"
            raise DeviceError(text, hint="try again later", retryable=True) from None
        return value

    def _call(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _step(self, steps: Iterator[Any]) -> asyncio.Future[Any]:
        return self._call(next, steps, _END)

    async def _tend(self) -> None:
        """Index what was touched, the longest waiting first."""
        while self._touched:
            space, touch = next(iter(self._touched.items()))
            steps, more = self._finder.index(space), True
            while more and self._touched.get(space) == touch:
                await self._leisure.wait()
                began = time.monotonic()
                more = await self._tended(space, steps)
                await asyncio.sleep(min(PAUSE_S_MAX, PAUSES * (time.monotonic() - began)))
            again = self._touched.pop(space, touch)
            if again != touch:  # it has grown meanwhile: the others first
                self._touched[space] = again

    async def _tended(self, space: str, steps: Iterator[Any]) -> bool:
        """One step of a space, or vectors for some of its chunks; False when there is nothing left to do."""
        step = asyncio.ensure_future(self._next(space, steps))
        try:
            await asyncio.wait({step})
        finally:
            step.cancel()  # closing: nobody looks at how it ends
        if (error := step.exception()) is not None:
            self._fault = f"{space} cannot be indexed: {error}"  # who recalls in it is told
            return False
        return step.result()

    async def _next(self, space: str, steps: Iterator[Any]) -> bool:
        return await self._step(steps) is not _END or await self._meaning.tend(space)
