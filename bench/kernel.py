"""What the benchmarks of the kernel share: a program that only looks for messages, and engines that cost nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from mains.kernel.ports import Reply, ToolCall, Usage

T = TypeVar("T")

PROGRAM = """---
name: looker
description: looks for messages, for ever
tools: [receive]
---
Look for messages.
"""
USAGE = Usage(input_tokens=100, output_tokens=10)
LOOK = Reply("", (ToolCall("look", "receive", '{"timeout_s": 0}'),), usage=USAGE)
WAIT = Reply("", (ToolCall("wait", "receive", "{}"),), usage=USAGE)
END = Reply("done", usage=USAGE)
PATIENCE_S = 600
_LOOK_S = 0.005
OPENING = 2  # messages before the first reply: the prose, and "Begin."


def write_program(folder: Path) -> Path:
    """The program's file, in `folder`."""
    path = folder / "looker.md"
    path.write_text(PROGRAM)
    return path


def turn_of(messages: int) -> int:
    """The turn (1 is the first) of a looker whose frame has so many messages: each turn adds a reply and a result."""
    return 1 + (messages - OPENING) // 2


async def until(reached: Callable[[], bool]) -> None:
    """Look every few milliseconds until it is so. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not reached():  # noqa: ASYNC110 - a kernel tells nobody that it has come to rest
            await asyncio.sleep(_LOOK_S)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run on the event loop that the daemon uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
