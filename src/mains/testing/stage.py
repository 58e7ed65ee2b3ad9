"""The stage: an event loop without a world. No thread, no socket, no time but a FakeClock's, and the same order always.

What asyncio leaves to chance is decided here: threads (`run_in_executor` does the work on the loop, some turns later,
as a seed says), time (the clock's), and the order of sets of futures and tasks, which hangs on memory addresses (each
gets a number as its hash). So a run is a function of its seed.

`idle()` returns when nothing is left to do until time moves. Where nobody asks for that, time moves by itself to the
next thing that is due; when there is none, the stage has hung, and says so with `Stuck`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import selectors
from collections.abc import Callable
from typing import Any

from mains.testing.clock import FakeClock


class PowerCut(SystemExit):
    """The world ends here (asyncio lets a SystemExit, and little else, out of its loop at once)."""


class Stuck(SystemExit):
    """Nothing can happen any more, and somebody waits."""


class _Future(asyncio.Future[Any]):
    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _Work(asyncio.Task[Any]):
    def __init__(self, number: int, coroutine: Any, loop: asyncio.AbstractEventLoop, **named: Any) -> None:
        self._number = number  # first: asyncio asks for the hash while a task is made
        super().__init__(coroutine, loop=loop, **named)

    def __hash__(self) -> int:
        return self._number


class _Still(selectors.SelectSelector):
    """Waits for nothing: says at each turn whether the loop would sleep."""

    def __init__(self, turned: Callable[[float | None], None]) -> None:
        super().__init__()
        self._turned = turned

    def select(self, timeout: float | None = None) -> list[Any]:
        self._turned(timeout)
        return []


class Stage(asyncio.SelectorEventLoop):
    """See the module's header. `turns_max`: a run that needs more loop turns than this to come to rest has hung."""

    def __init__(self, clock: FakeClock, chance: random.Random, turns_max: int = 20_000) -> None:
        super().__init__(_Still(self._turned))
        self._clock = clock
        self._chance = chance
        self._numbers = itertools.count(1)
        self._idle: list[asyncio.Future[None]] = []
        self._turns = 0
        self._turns_max = turns_max
        self.set_task_factory(lambda loop, coroutine, **named: _Work(next(self._numbers), coroutine, loop, **named))

    def time(self) -> float:
        """What has passed on the clock, in seconds."""
        return self._clock.passed_ms() / 1_000

    def create_future(self) -> asyncio.Future[Any]:
        """A future whose place in a set does not hang on where it lies in memory."""
        return _Future(next(self._numbers), self)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do the work of a thread on the loop, after no turn or a few."""
        return self.create_task(self._work(self._chance.choice((0, 0, 0, 1, 2, 5)), func, args))

    async def _work(self, turns: int, func: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return func(*args)

    async def idle(self) -> None:
        """Return when nothing can happen until the clock moves. Raises TimeoutError when that never comes."""
        self._turns = 0
        waiting = self.create_future()
        self._idle.append(waiting)
        await waiting

    def _turned(self, timeout_s: float | None) -> None:
        """A turn begins; the loop would sleep so long (None: for ever)."""
        self._turns += 1
        idle = timeout_s is None or timeout_s > 0
        if idle and not self._idle:
            self._pass_time(timeout_s)
        if not self._idle or not (idle or self._turns > self._turns_max):
            return
        waiting, self._idle = self._idle, []
        for future in waiting:
            if not future.done() and idle:
                future.set_result(None)
            elif not future.done():
                future.set_exception(TimeoutError(f"the loop did not come to rest in {self._turns_max} turns"))

    def _pass_time(self, timeout_s: float | None) -> None:
        spans = [span for span in (self._clock.next_ms(), _ms(timeout_s)) if span is not None]
        if not spans:
            raise Stuck("nothing is due, and somebody waits")
        self._clock.advance(max(1, min(spans)))


def _ms(span_s: float | None) -> int | None:
    return None if span_s is None else math.ceil(span_s * 1_000)
