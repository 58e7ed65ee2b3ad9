"""What a granted, journalled call of a device costs above the same call with the bare SDK, in memory and over stdio.

A process of a real kernel takes turns that alternate: one whose call is a syscall that is done at once, one whose call
is the device's. What the second takes longer, as its engine sees it, is what a device call costs in all: the grant
decided, the intent written with the reply, the call, and the result in a commit of its own. Between the two, in the
same loop, the engine makes the same call with the SDK's own client on a server of its own, so that each pair belongs to
one moment. Overhead is the difference of the two, pair by pair.

The kernel's own points say what it consists of: from the intent on disk to the call, the call itself, from its answer
to the commit, the commit.

Throughput: 16 processes, each with eight replies of eight calls, made in order, against 16 tasks that make 64 calls one
after the other over one session. Rounds alternate. The turns of the processes are in it: one for eight calls.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from bench import kernel, machine
from bench.bus_place import CALLERS, WAYS, Points, Way, opened
from bench.report import Figure, Report, below
from mains.errors import KernelPanic
from mains.kernel import reckon
from mains.kernel.ports import Reply, Request, ToolCall

GOAL_MS = 0.5
_ADD = ToolCall("add", "box.add", '{"a": 1, "b": 2}')
_CALL = Reply("", (_ADD,), usage=kernel.USAGE)
_IN_REPLY = 8
_SOME = Reply("", (_ADD,) * _IN_REPLY, usage=kernel.USAGE)


class Size(msgspec.Struct, frozen=True):
    """Processes that are timed, one after the other; pairs of turns of each; rounds of throughput, and the replies of
    each process in one."""

    processes: int
    pairs: int
    rounds: int
    replies: int = 8


FULL = Size(20, 50, 5)
QUICK = Size(2, 5, 1, 1)


class Pairs:
    """The engine of the timed processes: it makes the bare calls, and takes the times of the turns between."""

    def __init__(self, size: Size) -> None:
        self._last = 1 + 2 * size.pairs
        self._asked_s = 0.0
        self.client: Any = None
        self.bare: list[float] = []
        self.plain: list[float] = []
        self.called: list[float] = []

    async def answer(self, request: Request) -> Reply:
        """Odd turns look for messages, even ones call the device; the last one ends."""
        now_s, turn = time.perf_counter(), kernel.turn_of(len(request.messages))
        if turn > 1:
            (self.called if turn % 2 else self.plain).append(now_s - self._asked_s)
        if turn > self._last - 1:
            return kernel.END
        if turn % 2:
            self.bare.append(await timed(self.client))
        reply = kernel.LOOK if turn % 2 else _CALL
        self._asked_s = time.perf_counter()
        return reply


async def timed(client: Any) -> float:
    """The seconds of a bare call."""
    start = time.perf_counter()
    result = await client.call_tool("add", {"a": 1, "b": 2})
    span_s = time.perf_counter() - start
    if result.is_error or result.content[0].text != "3":
        raise KernelPanic("the bare call was not answered as it should be")
    return span_s


class Latency(msgspec.Struct, frozen=True):
    """Seconds, a list entry for each pair; and the parts of a call."""

    bare: list[float]
    through: list[float]
    parts: dict[str, float]
    fsync_us: float

    def figures(self, way: Way) -> list[Figure]:
        over = [mine - theirs for mine, theirs in zip(self.through, self.bare, strict=True)]
        figures = []
        for name, spans in (("bare call", self.bare), ("granted, journalled call", self.through)):
            figures += [
                Figure(f"{way}: {name}, p50", _p(spans, 50), "ms"),
                Figure(f"{way}: {name}, p99", _p(spans, 99), "ms"),
            ]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(self.through, self.bare, strict=True))
        return [
            *figures,
            below(f"{way}: overhead, p50", _p(over, 50), "ms", GOAL_MS),
            Figure(f"{way}: overhead, p99", _p(over, 99), "ms"),
            Figure(f"{way}: through Mains / bare", ratio, "x"),
            *(Figure(f"{way}: of it {name}, p50", 1_000 * span, "ms") for name, span in self.parts.items()),
            Figure(f"{way}: fsync", self.fsync_us, "us"),
        ]


def _p(spans: list[float], percent: int) -> float:
    """A percentile, in milliseconds."""
    return 1_000 * sorted(spans)[min(len(spans) - 1, len(spans) * percent // 100)]


async def latency(folder: Path, way: Way, size: Size) -> Latency:
    """One process after the other."""
    pairs = Pairs(size)
    async with opened(folder, way, pairs.answer) as (desk, client, points, program):
        pairs.client = client
        for number in range(size.processes + 1):
            outcome = await desk.wait(await desk.spawn(program))
            if outcome.result != "done" or outcome.turns != 2 * size.pairs + 1:
                raise KernelPanic(f"a process did not end as it should: {outcome}")
            if not number:  # the first one warms everything up
                for spans in (pairs.bare, pairs.plain, pairs.called):
                    spans.clear()
                points.at_s.clear()
        if reckon.verify(desk.journal):
            raise KernelPanic("the ledger is not as it should be")
        through = [called - plain for called, plain in zip(pairs.called, pairs.plain, strict=True)]
        return Latency(pairs.bare, through, _parts(points), machine.fsync_us(folder))


def _parts(points: Points) -> dict[str, float]:
    """Medians of what a call consists of."""
    at = points.at_s
    intents = _before(at["replied.commit.after"], at["device.before"])
    names = {
        "from the intent on disk to the call": zip(intents, at["device.before"], strict=True),
        "the call": zip(at["device.before"], at["device.after"], strict=True),
        "from its answer to the commit": zip(at["device.after"], at["returned.commit.before"], strict=True),
        "the commit": zip(at["returned.commit.before"], at["returned.commit.after"], strict=True),
    }
    return {name: statistics.median(end - begin for begin, end in spans) for name, spans in names.items()}


def _before(times: list[float], marks: list[float]) -> list[float]:
    """Of each mark the last time before it."""
    found, left = [], iter(times)
    upcoming = next(left, None)
    last = 0.0
    for mark in marks:
        while upcoming is not None and upcoming < mark:
            last, upcoming = upcoming, next(left, None)
        found.append(last)
    return found


class Crowd:
    """The engine of 16 processes: at the gate all of them get their calls at once."""

    def __init__(self, replies: int) -> None:
        self._replies = replies
        self._standing = 0
        self._open = asyncio.Event()
        self.all_here = asyncio.Event()
        self.all_done = asyncio.Event()
        self._done = 0

    async def answer(self, request: Request) -> Reply:
        """Calls in each turn, then the end."""
        replies = (len(request.messages) - kernel.OPENING) // (_IN_REPLY + 1)
        if replies == self._replies:
            self._done += 1
            if self._done == CALLERS:
                self.all_done.set()
            return kernel.END
        if not replies:
            self._standing += 1
            if self._standing == CALLERS:
                self.all_here.set()
            await self._open.wait()
        return _SOME

    def open(self) -> None:
        """Let all of them go."""
        self._open.set()


class Throughput(msgspec.Struct, frozen=True):
    """Calls a second and CPU microseconds a call (of this program), bare and through Mains, round by round."""

    bare: list[tuple[float, float]]
    mains: list[tuple[float, float]]

    def figures(self, way: Way) -> list[Figure]:
        ratio = statistics.median(mine[0] / theirs[0] for mine, theirs in zip(self.mains, self.bare, strict=True))
        figures = [Figure(f"{way}: {CALLERS} callers, Mains / bare", ratio, "x")]
        for name, rounds in (("bare", self.bare), ("Mains", self.mains)):
            figures += [
                Figure(f"{way}: {CALLERS} callers, {name}", statistics.median(each[0] for each in rounds), "calls/s"),
                Figure(f"{way}: CPU a call, {name}", statistics.median(each[1] for each in rounds), "us"),
            ]
        return figures


async def throughput(folder: Path, way: Way, size: Size) -> Throughput:
    """Rounds in turn, in one kernel."""
    measured = Throughput([], [])
    crowd, each = Crowd(size.replies), size.replies * _IN_REPLY
    async with opened(folder, way, lambda request: crowd.answer(request)) as (desk, client, _, program):
        for number in range(size.rounds + 1):
            bare = await _spent(_bare_crowd(client, each), each)
            crowd = Crowd(size.replies)
            pids = await asyncio.gather(*(desk.spawn(program) for _ in range(CALLERS)))
            await crowd.all_here.wait()
            machine.settle()
            mains = await _spent(_crowd(crowd), each)
            outcomes = await asyncio.gather(*(desk.wait(pid) for pid in pids))
            if {outcome.result for outcome in outcomes} != {"done"}:
                raise KernelPanic(f"a process did not end as it should: {outcomes[0]}")
            if number:  # the first one warms everything up
                measured.bare.append(bare)
                measured.mains.append(mains)
    return measured


async def _spent(work: Awaitable[None], each: int) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    await work
    calls = CALLERS * each
    return calls / (time.perf_counter() - start), 1e6 * (time.process_time() - cpu) / calls


async def _crowd(crowd: Crowd) -> None:
    crowd.open()
    await crowd.all_done.wait()


async def _bare_crowd(client: Any, each: int) -> None:
    async def call() -> None:
        for _ in range(each):
            await timed(client)

    await asyncio.gather(*(call() for _ in range(CALLERS)))


def main(quick: bool) -> Report:
    """Both ways."""
    size = QUICK if quick else FULL
    figures: list[Figure] = []
    for way in WAYS:
        with machine.scratch() as folder:
            figures += kernel.run(latency(folder / "latency", way, size)).figures(way)
            figures += kernel.run(throughput(folder / "crowd", way, size)).figures(way)
    note = f"{size.processes * size.pairs:,} pairs a way; a call in a pair is a turn with it less a turn without"
    sizes = f"{CALLERS} callers with {size.replies} replies of {_IN_REPLY} calls each, {size.rounds} rounds"
    return Report("bus", tuple(figures), (note, f"{sizes}; CPU is this program's, without servers"))
