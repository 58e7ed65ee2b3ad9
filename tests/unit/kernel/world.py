"""A kernel to test through its public doors: a real home in a folder, an engine that a function answers, no sleep."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import mains
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.ports import Device, Engine, Finish, Reply, Request, ToolCall, Usage
from mains.testing import FakeClock, ScriptedEngine

Answer = Callable[[Request], Reply | Awaitable[Reply]]


def call(name: str, **arguments: Any) -> ToolCall:
    """A call as a model makes it."""
    return ToolCall("x", name, json.dumps(arguments))


def calls(*made: ToolCall) -> Reply:
    """A reply that makes calls."""
    return Reply("", made, Usage(10, 0, 5), Finish.CALLS)


def says(text: str, tokens: int = 5) -> Reply:
    """A reply that is text."""
    return Reply(text, usage=Usage(10, 0, tokens))


def turn_of(request: Request) -> int:
    """How many replies the frame holds."""
    return sum(m.role == "assistant" for m in request.messages)


def by_turn(*replies: Reply) -> Answer:
    """The n-th reply in the n-th turn; the last one again and again."""
    return lambda request: replies[min(turn_of(request), len(replies) - 1)]


class World:
    """A home in a folder, its programs, and what the engine was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Request] = []
        self.clock = FakeClock()

    def program(self, name: str, front: str = "", prose: str = "Do it.") -> Path:
        """Write a program and give its path."""
        path = self.folder / f"{name}.md"
        path.write_text(f"---\nname: {name}\ndescription: {name}\n{front}\n---\n{prose}\n")
        return path

    @contextlib.asynccontextmanager
    async def open(
        self,
        answer: Answer,
        *,
        devices: Sequence[Device] = (),
        slots: int = 8,
        others: Sequence[Engine] = (),
        **settings: Any,
    ) -> AsyncIterator[Desk]:
        """Boot over this folder (`others`: more engines); at the end the journal and the ledger must verify."""

        def asked(request: Request) -> Reply | Awaitable[Reply]:
            self.asked.append(request)
            return answer(request)

        engine = ScriptedEngine.of(asked, slots=slots)
        async with mains.open(
            self.folder / "home",
            engines=[engine, *others],
            devices=devices,
            settings=mains.Settings(**settings),
            clock=self.clock,
        ) as kernel:
            yield kernel
            faults = audit.verify(kernel.journal) + reckon.verify(kernel.journal)
            assert not faults, faults

    async def until(self, check: Callable[[], Awaitable[bool]]) -> None:
        """Let the loop turn until `check` holds. A disk that others use may take seconds for one commit."""
        end_s = time.monotonic() + 120
        while not await check():
            assert time.monotonic() < end_s, "it never came to pass"
            await asyncio.sleep(0)

    async def until_state(self, kernel: Desk, pid: int, state: str, reason: str = "") -> None:
        """Wait until a process is in a state (and its reason begins with `reason`)."""

        async def is_there() -> bool:
            try:
                outcome = await kernel.outcome(pid)
            except mains.NotFoundError:
                return False
            return outcome.state == state and outcome.reason.startswith(reason)

        await self.until(is_there)
