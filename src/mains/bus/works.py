"""Work that goes on beside its caller: held on to until it ends, and ended with whom it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Works:
    """Tasks; what they raise is for whoever looks at them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a piece of work."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(looked_at)
        return task

    def cancel(self) -> None:
        """End all of it."""
        for task in [*self._tasks]:
            task.cancel()


def looked_at(done: asyncio.Future[Any]) -> None:
    """Whatever a future holds was seen: nobody need fetch it."""
    if not done.cancelled():
        done.exception()


async def in_thread(work: Callable[[], object]) -> Callable[[], None]:
    """Do a short piece of work in a thread, to its end, also when we are told to stop meanwhile. Raises what it raises.

    What is given back raises CancelledError when we were told: it is for after what follows from the work.
    """
    doing, told = asyncio.ensure_future(asyncio.to_thread(work)), False
    while not doing.done():
        try:
            await asyncio.wait({doing})
        except asyncio.CancelledError:
            told = True
    doing.result()

    def tell() -> None:
        if told:
            raise asyncio.CancelledError

    return tell
