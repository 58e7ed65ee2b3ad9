"""Boot with 10,000 processes, 1,000 of them in the middle of a turn.

A kernel runs 9,000 processes until they wait for a message, and 1,000 more whose model call is never answered; then it
is killed with SIGKILL. Over copies of what it leaves, a kernel boots in a fresh Python each time. The clock runs from
`mains.open` to the moment when all 1,000 are recovered and queued (their holds posted, their calls to be made again);
`from exec` counts the interpreter and its imports, too.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import msgspec

import mains
from bench import kernel, machine
from bench.child import ROOT, command, in_child
from bench.report import Figure, Report, below
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel.ports import Reply, Request

GOAL_S = 2.0
_READY = b"in flight"


class Size(msgspec.Struct, frozen=True):
    """How many processes wait for a message, how many are in a model call, and in how many rounds we boot."""

    idle: int
    flying: int
    rounds: int


FULL = Size(9_000, 1_000, 5)
QUICK = Size(90, 10, 1)


class Booted(msgspec.Struct, frozen=True):
    """A boot: its time, the number of calls that were made again, and the idle and empty kernel beside it."""

    span_s: float
    recovered: int


def _engine(idle: int, slots: int) -> ScriptedEngine:
    """Lets the first `idle` calls wait for a message, and never answers one after those."""

    async def never() -> Reply:
        return await asyncio.get_running_loop().create_future()

    def answer(request: Request) -> object:
        return kernel.WAIT if engine.calls <= idle else never()

    engine = ScriptedEngine.of(answer, slots=slots)
    return engine


def fly(folder: str, idle: int, flying: int) -> None:
    """Run until all but `flying` processes are idle, and those in a call; say so, and wait to be killed."""
    kernel.run(_fly(Path(folder), idle, flying))


async def _fly(folder: Path, idle: int, flying: int) -> None:
    program = kernel.write_program(folder)
    engine = _engine(idle, flying)
    async with mains.open(folder / "home", engines=[engine]) as desk:
        await asyncio.gather(*(desk.spawn(program) for _ in range(idle + flying)))
        while engine.calls < idle + flying:
            await asyncio.sleep(0.005)
        states = [view.state for view in await desk.ps()]
        if states.count("RUNNING") != flying or states.count("WAITING") != idle:
            raise KernelPanic(f"{flying} processes should be in a call, and {idle} idle")
        print(_READY.decode(), flush=True)
        await asyncio.get_running_loop().create_future()


def leave_in_flight(folder: Path, size: Size) -> None:
    """Make the home that a killed kernel leaves."""
    child = subprocess.Popen(command(fly, str(folder), size.idle, size.flying), cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child:
        line = child.stdout.readline()
        child.kill()
    if line.strip() != _READY:
        raise KernelPanic("the kernel that should have been killed did not come so far")


def boot(folder: str, flying: int) -> Booted:
    """Boot over such a home."""
    return kernel.run(_boot(Path(folder), flying))


async def _boot(folder: Path, flying: int) -> Booted:
    start = time.perf_counter()
    async with mains.open(folder / "home", engines=[_engine(0, flying)]) as desk:
        span_s = time.perf_counter() - start
        kinds = [row[0] for row in desk.journal.rows("event_kinds_of_failed")]
        return Booted(span_s, len(kinds))
