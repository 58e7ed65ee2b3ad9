"""Boot with 10,000 processes, 1,000 of them in the middle of a turn.

A kernel runs 9,000 processes until they wait for a message, and 1,000 more whose model call is never answered; then it
is killed with SIGKILL. Over copies of what it leaves, a kernel boots in a fresh Python each time. The clock runs from
`mains.open` to the moment when all 1,000 are recovered and queued: their holds posted, their calls to be made again.
"From exec to exit" counts the interpreter, its imports and an orderly halt, too.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path

import msgspec

import mains
from bench import kernel, machine
from bench.child import ROOT, command, in_child
from bench.report import Figure, Report, below
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel.ports import Reply, Request
from mains.kernel.process import State

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
    """A boot: the time until all were recovered and queued, and until the engine had every call again."""

    span_s: float
    again_s: float


def _engine(idle: int, slots: int) -> ScriptedEngine:
    """Lets the first `idle` calls wait for a message, and never answers one after those."""

    def answer(request: Request) -> Reply | asyncio.Future[Reply]:
        return kernel.WAIT if engine.calls <= idle else asyncio.get_running_loop().create_future()

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
        count = partial(desk.journal.rows, "process_pids_in")
        await kernel.until(lambda: engine.calls == idle + flying and len(count(State.WAITING)) == idle)
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
    engine = _engine(0, flying)
    start = time.perf_counter()
    async with mains.open(folder / "home", engines=[engine]):
        span_s = time.perf_counter() - start
        await kernel.until(lambda: engine.calls == flying)
        return Booted(span_s, time.perf_counter() - start)


def main(quick: bool) -> Report:
    """Kill once, boot over copies of what is left."""
    size = QUICK if quick else FULL
    booted: list[Booted] = []
    starts_s: list[float] = []
    with machine.scratch() as folder:
        fsync_us = machine.fsync_us(folder)
        leave_in_flight(folder, size)
        for number in range(size.rounds):
            copy = folder / f"copy-{number}"
            shutil.copytree(folder / "home", copy / "home")
            start = time.perf_counter()
            booted.append(msgspec.convert(in_child(boot, str(copy), size.flying), Booted))
            starts_s.append(time.perf_counter() - start)
            shutil.rmtree(copy)
    what = f"boot, {size.idle + size.flying:,} processes, {size.flying:,} mid-turn"
    figures = (
        below(what, statistics.median(b.span_s for b in booted), "s", GOAL_S),
        Figure("all model calls made again", statistics.median(b.again_s for b in booted), "s"),
        Figure("from exec to exit", statistics.median(starts_s), "s"),
        Figure("fsync", fsync_us, "us"),
    )
    return Report("boot", figures, (f"median of {size.rounds} rounds, a fresh Python and a copy of the home in each",))
