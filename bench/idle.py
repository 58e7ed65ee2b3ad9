"""100,000 idle processes: what they cost in memory, and how fast 1,000 of them wake.

Each process has run a turn and waits for a message (`receive`). Memory is the resident memory of the whole program,
after garbage was collected and free memory given back, above that of a kernel over an empty home:

    made       the kernel that started and ran all of them, after the last has come to rest
    booted     a fresh kernel over that home, before anything is asked of it
    woken      the same after 1,000 messages and the turns that they bring

The clock of the wake runs from the first message sent to the last of those turns recorded; all of it is durable.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from pathlib import Path

import msgspec

import mains
from bench import kernel, machine
from bench.child import in_child
from bench.report import Figure, Report, below
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, ToolCall

GOAL_MB = 50
GOAL_S = 1.0
_FAMILY = 1_000
_SLOTS = 256
_STARTER = """---
name: starter
description: starts a looker for each item
tools: [spawn_each(looker)]
inputs:
  items: json
---
Start them.
"""
_START = Reply("", (ToolCall("start", "spawn_each", '{"program": "looker", "over": "items"}'),), usage=kernel.USAGE)


class Size(msgspec.Struct, frozen=True):
    """How many processes, how many of them are woken, and in how many rounds."""

    processes: int
    woken: int
    rounds: int


FULL = Size(100_000, 1_000, 5)
QUICK = Size(300, 50, 1)


class Made(msgspec.Struct, frozen=True):
    """A home with idle processes: the memory of the kernel that made them, in MB, and some of their pids."""

    before: float
    after: float
    pids: list[int]


class Woken(msgspec.Struct, frozen=True):
    """A wake: how long it took, and the memory of the kernel at boot and after it, in MB."""

    span_s: float
    booted: float
    after: float


def _megabytes() -> float:
    machine.settle()
    return machine.rss_bytes() / 1e6


def _engine() -> ScriptedEngine:
    def answer(request: Request) -> Reply:
        """A starter starts its lookers; a looker waits for a message."""
        return _START if request.tools[0].name == "spawn_each" else kernel.WAIT

    return ScriptedEngine.of(answer, slots=_SLOTS)


def bare_kernel(folder: str) -> float:
    """The memory of a kernel over an empty home."""

    async def work() -> float:
        async with mains.open(folder, engines=[_engine()]):
            return _megabytes()

    return kernel.run(work())


def make(folder: str, processes: int, woken: int) -> Made:
    """Make a home with idle processes: starters with a thousand children each."""
    return kernel.run(_make(Path(folder), processes, woken))


async def _make(folder: Path, processes: int, woken: int) -> Made:
    kernel.write_program(folder)
    starter = folder / "starter.md"
    starter.write_text(_STARTER)
    engine = _engine()
    async with mains.open(folder / "home", engines=[engine]) as desk:
        before = _megabytes()
        for start in range(0, processes, _FAMILY):
            family = min(_FAMILY, processes - start)
            calls = engine.calls + 1 + family
            await desk.spawn(starter, {"items": list(range(family))})
            await kernel.until(lambda calls=calls: engine.calls == calls and not desk.busy())  # type: ignore[misc]
        after = _megabytes()
        idle = [view.pid for view in await desk.ps() if view.reason == "message"]
        if len(idle) != processes:
            raise KernelPanic(f"{len(idle)} processes are idle, not {processes}")
        return Made(before, after, idle[:: processes // woken])


def wake(folder: str, pids: list[int]) -> Woken:
    """Boot over the home of `make`, and send a message to each of these."""
    return kernel.run(_wake(Path(folder), pids))


async def _wake(folder: Path, pids: list[int]) -> Woken:
    async with mains.open(folder / "home", engines=[_engine()]) as desk:
        booted = _megabytes()
        start = time.perf_counter()
        await _turn_each(desk, pids)
        return Woken(time.perf_counter() - start, booted, _megabytes())


async def _turn_each(desk: Desk, pids: list[int]) -> None:
    """Send to all at once, and wait until each has recorded a reply."""
    told = desk.watch()
    first = asyncio.ensure_future(anext(told))  # watching begins here
    await asyncio.sleep(0)
    sends = asyncio.gather(*(desk.send(pid, "Look again.") for pid in pids))
    left = set(pids)
    notice = await first
    while True:
        if notice.kind == "replied":
            left.discard(notice.pid)
        if not left:
            break
        notice = await anext(told)
    await sends


def main(quick: bool) -> Report:
    """Make the home once; then boot and wake over copies of it."""
    size = QUICK if quick else FULL
    with machine.scratch() as folder:
        fsync_us = machine.fsync_us(folder)
        bare = float(in_child(bare_kernel, str(folder / "bare")))
        made = msgspec.convert(in_child(make, str(folder), size.processes, size.woken), Made)
        rounds: list[Woken] = []
        for number in range(size.rounds):
            copy = folder / f"copy-{number}"
            shutil.copytree(folder / "home", copy / "home")
            rounds.append(msgspec.convert(in_child(wake, str(copy), made.pids), Woken))
            shutil.rmtree(copy)
    booted = statistics.median(woken.booted for woken in rounds)
    after = statistics.median(woken.after for woken in rounds)
    figures = (
        Figure("bare kernel", bare, "MB"),
        below(f"{size.processes:,} idle, made", made.after - made.before, "MB above bare", GOAL_MB),
        below(f"{size.processes:,} idle, booted", booted - bare, "MB above bare", GOAL_MB),
        below(f"{size.woken:,} of them woken", after - bare, "MB above bare", GOAL_MB),
        below(f"wake {size.woken:,}", statistics.median(woken.span_s for woken in rounds), "s", GOAL_S),
        Figure("fsync", fsync_us, "us"),
    )
    return Report("idle", figures, (f"median of {size.rounds} rounds, a fresh Python and a copy of the home in each",))
