"""Memory at scale: a home of 10,000 processes with 50 pages each, and one of 5,000; and what indexing costs the turns.

    disk      bytes of the database, and for each entry of a context; of memory.db when all is indexed
    boot      a fresh Python opens the home: seconds, and memory above that of a kernel over an empty home
    recall    in the process of 5,000 pages, as it makes the call: the first time, when nothing is indexed, and then
              with all 505,000 entries indexed
    turns     turns a second, CPU, and the time of a commit from outside while 100 processes make turns: alone, while a
              process of 5,000 pages is indexed at leisure again and again, and while somebody recalls in it each time
    fit       the CPU of a turn with and without the look at the frame before each call (`paging.fit`), and how many
              statements that look runs

Pairs are made in turn within a round, so that drift of the machine cancels. The home: `memory_home.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from unittest import mock

import msgspec

import mains
from bench import kernel, machine, memory_home
from bench.child import in_child
from bench.memory_home import Home, Maker, Texts
from bench.report import Figure, Report, below
from bench.turns import Gate
from mains.compose import Source
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel import audit, paging, reckon
from mains.kernel.desk import Desk
from mains.kernel.lookup import Documents, Lookup
from mains.kernel.ports import Reply, Request
from mains.kernel.process import Process
from mains.kernel.tx import Tx
from mains.search.index import Index

GOAL_MS = 20.0
_PROBE_S = 0.004
WAYS = ("alone", "indexed at leisure", "indexed for a recall")


class Size(msgspec.Struct, frozen=True):
    """The home; recalls; processes that make turns, turns of each in a round, and rounds."""

    home: Home
    recalls: int
    busy: int
    turns: int
    rounds: int


FULL = Size(Home(10_000, 50, 5_000), 400, 100, 60, 5)
QUICK = Size(Home(20, 10, 200), 10, 10, 6, 1)


class Made(msgspec.Struct, frozen=True):
    """A home: how long it took to make, the pid of the large process, and the bytes of its database."""

    span_s: float
    pid: int
    db_bytes: int


class Booted(msgspec.Struct, frozen=True):
    """A boot."""

    span_s: float
    rss_bytes: int


class Recalled(msgspec.Struct, frozen=True):
    """Recalls in the large process: the first, then those with all indexed."""

    first_ms: float
    first_found: bool
    index_s: float
    p50_ms: float
    p99_ms: float
    found: float
    db_bytes: int
    rss_bytes: int


class Busy(msgspec.Struct, frozen=True):
    """A round of turns: how fast, the CPU of the whole program for a turn, and the time of a commit from outside."""

    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    indexed: int  # how often the space was indexed meanwhile


def _idle_engine() -> ScriptedEngine:
    def answer(request: Request) -> Reply:
        raise KernelPanic("nobody makes a turn in this home")

    return ScriptedEngine.of(answer)


def make(folder: str, home: Home | dict[str, int]) -> Made:
    """Make the home."""
    return kernel.run(_make(Path(folder), msgspec.convert(home, Home)))


async def _make(folder: Path, home: Home) -> Made:
    started = time.perf_counter()
    settings = mains.Settings(processes_max=1_000_000)
    async with mains.open(folder / "home", engines=[_idle_engine()], settings=settings) as desk:
        pid = await Maker(desk, folder).fill(home)
        span_s = time.perf_counter() - started
        if faults := audit.verify(desk.journal) + reckon.verify(desk.journal):
            raise KernelPanic(f"the audit found {len(faults)} faults: {faults[0]}")
    return Made(span_s, pid, sum(memory_home.sizes(folder / "home" / "mains.db").values()))


def boot(folder: str) -> Booted:
    """Open a home, and look at the memory."""

    async def work() -> Booted:
        started = time.perf_counter()
        async with mains.open(Path(folder) / "home", engines=[_idle_engine()]):
            span_s = time.perf_counter() - started
            machine.settle()
            return Booted(span_s, machine.rss_bytes())

    return kernel.run(work())


def recall(folder: str, pid: int, size: Size | dict[str, object]) -> Recalled:
    """Recall in a home of which nothing is indexed, then index all, and recall again."""
    return kernel.run(_recall(Path(folder), pid, msgspec.convert(size, Size)))


async def _recall(folder: Path, pid: int, size: Size) -> Recalled:
    path = folder / "index.db"  # that of the home is open already, and belongs to one
    async with mains.open(folder / "home", engines=[_idle_engine()]) as desk:
        index = Index(path, Source(Documents(desk.journal)), wait_s=3_600)
        lookup = Lookup(desk.journal, index, mains.Settings())
        [p] = desk.journal.processes("process_get", pid)
        asked = memory_home.questions(Texts(), size.home.large, size.recalls + 1)
        query, name = asked[0]
        first_ms, told = await _timed(lookup, p, query)
        first_found = memory_home.answered(told, name)
        started = time.perf_counter()
        for row in desk.journal.rows("process_pids_in", "WAITING"):
            await index.recall([(f"p{row[0]}", None)], "nowhere", 1)
        index_s = time.perf_counter() - started
        spans, found = [], 0
        for query, name in asked[1:]:
            span_ms, told = await _timed(lookup, p, query)
            spans.append(span_ms)
            found += memory_home.answered(told, name)
        machine.settle()
        rss_bytes = machine.rss_bytes()
        await index.close()
    spans.sort()
    p99 = spans[int(len(spans) * 0.99)]
    db_bytes = sum(memory_home.sizes(path).values())
    return Recalled(
        first_ms, first_found, index_s, statistics.median(spans), p99, found / len(spans), db_bytes, rss_bytes
    )


async def _timed(lookup: Lookup, p: Process, query: str) -> tuple[float, str]:
    started = time.perf_counter()
    told = await lookup.call(p, "recall", {"query": query, "k": 5})
    return (time.perf_counter() - started) * 1_000, told


# ------------------------------------------------------------------------------------------------------------ turns


async def _probe(desk: Desk, spans: list[float]) -> None:
    """Commit again and again, as somebody outside would, and note how long it takes."""
    while True:
        started = time.perf_counter()
        await desk.journal.commit(lambda tx: tx.now_ms, "probe")
        spans.append((time.perf_counter() - started) * 1_000)
        await asyncio.sleep(_PROBE_S)


async def _indexing(index: Index, space: str, way: str, times: list[int]) -> None:
    """Index a space, forget it, and index it again."""
    while True:
        if way == WAYS[1]:
            index.touch(space)
            while index.state().touched:  # noqa: ASYNC110 - an index tells nobody that it has come to rest
                await asyncio.sleep(_PROBE_S)
        else:
            await index.recall([(space, None)], "nowhere", 1)
        times[0] += 1
        await index.forget([space])


@contextlib.asynccontextmanager
async def _beside(desk: Desk, folder: Path, pid: int, way: str) -> AsyncIterator[tuple[list[float], list[int]]]:
    """Probes, and the indexing that goes on meanwhile."""
    spans, times = list[float](), [0]
    index = Index(folder / "probe.db", Source(Documents(desk.journal)), wait_s=600)
    tasks = [asyncio.create_task(_probe(desk, spans))]
    if way != WAYS[0]:
        tasks.append(asyncio.create_task(_indexing(index, f"p{pid}", way, times)))
    try:
        yield spans, times
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await index.close()


async def busy(folder: Path, size: Size, way: str) -> Busy:
    """A round of turns in a fresh home with a large process."""
    gate = Gate(size.busy, size.turns)
    engine = ScriptedEngine.of(gate.answer, slots=size.busy)
    settings = mains.Settings(turns_max=size.turns + 2)
    async with mains.open(folder / "home", engines=[engine], settings=settings) as desk:
        pid = await Maker(desk, folder).large(size.home.large)
        program = kernel.write_program(folder)
        pids = await asyncio.gather(*(desk.spawn(program) for _ in range(size.busy)))
        await gate.all_here.wait()
        machine.settle()
        async with _beside(desk, folder, pid, way) as (spans, times):
            started, cpu = time.perf_counter(), time.process_time()
            gate.open()
            await gate.all_here.wait()
            span_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
            spans = sorted(spans) or [0.0]
            indexed = times[0]
        gate.open()
        await asyncio.gather(*(desk.wait(pid) for pid in pids))
    made = size.busy * size.turns
    p99 = spans[int(len(spans) * 0.99)]
    return Busy(made / span_s, cpu_s / made * 1e6, statistics.median(spans), p99, indexed)


class Fits:
    """Counts looks at frames, and the statements that they run."""

    def __init__(self) -> None:
        self.looks = self.read = self.statements = 0
        self._fit = paging.fit

    def counting(self, tx: Tx, world: paging.World, p: Process, joining_tokens: int) -> paging.Room:
        """`paging.fit`, and how many statements it ran."""
        ran = list[str]()
        tx._connection.set_trace_callback(ran.append)
        try:
            return self._fit(tx, world, p, joining_tokens)
        finally:
            tx._connection.set_trace_callback(None)
            self.looks += 1
            self.read += bool(ran)
            self.statements += len(ran)


def _unlooked(tx: Tx, world: paging.World, p: Process, joining_tokens: int) -> paging.Room:
    """A call without a look at its frame."""
    return paging.Room(p)


@contextlib.contextmanager
def _without_looks() -> Iterator[None]:
    with mock.patch.object(paging, "fit", _unlooked):
        yield


def _turns(size: Size) -> list[Figure]:
    """Rounds of all ways, in turn."""
    rounds: dict[str, list[Busy]] = {way: [] for way in (*WAYS, "no look")}
    for number in range(size.rounds):
        order = list(rounds)
        for way in order[number % len(order) :] + order[: number % len(order)]:
            with machine.scratch() as folder, _without_looks() if way == "no look" else contextlib.nullcontext():
                rounds[way].append(kernel.run(busy(folder, size, WAYS[0] if way == "no look" else way)))
    fits = Fits()
    with machine.scratch() as folder, mock.patch.object(paging, "fit", fits.counting):
        kernel.run(busy(folder, size, WAYS[0]))
    median = statistics.median
    figures = []
    for way, made in rounds.items():
        figures.append(Figure(f"turns, {way}", median(each.per_s for each in made), "turns/s"))
        figures.append(Figure(f"CPU a turn, {way}", median(each.cpu_us for each in made), "us"))
        figures.append(Figure(f"a commit, {way}: p50", median(each.p50_ms for each in made), "ms"))
        figures.append(Figure(f"a commit, {way}: p99", median(each.p99_ms for each in made), "ms"))
    alone = rounds[WAYS[0]]
    for way in WAYS[1:]:
        slower = median(mine.per_s / other.per_s for mine, other in zip(rounds[way], alone, strict=True))
        later = median(mine.p99_ms / other.p99_ms for mine, other in zip(rounds[way], alone, strict=True))
        figures.append(Figure(f"turns, {way} / alone", slower, "x"))
        figures.append(Figure(f"a commit's p99, {way} / alone", later, "x"))
        figures.append(Figure(f"times the space was indexed, {way}", sum(e.indexed for e in rounds[way]), ""))
    dearer = median(mine.cpu_us / other.cpu_us for mine, other in zip(alone, rounds["no look"], strict=True))
    return [
        *figures,
        Figure("CPU a turn, with / without a look at the frame", dearer, "x"),
        Figure("looks at a frame that read something", 100 * fits.read / max(1, fits.looks), "%"),
        Figure("statements of a look", fits.statements / max(1, fits.looks), ""),
    ]


def main(quick: bool) -> Report:
    """The large home, then the busy one."""
    size = QUICK if quick else FULL
    home = size.home
    with machine.scratch() as folder:
        fsync_us = machine.fsync_us(folder)
        bare = msgspec.convert(in_child(boot, str(folder / "bare")), Booted)
        made = msgspec.convert(in_child(make, str(folder), home), Made)
        boots = [msgspec.convert(in_child(boot, str(folder)), Booted) for _ in range(1 if quick else 5)]
        recalled = msgspec.convert(in_child(recall, str(folder), made.pid, size), Recalled)
    figures = (
        Figure("home", made.db_bytes / 1e6, "MB"),
        Figure("an entry of a context", made.db_bytes / home.pages, "bytes"),
        Figure("boot", statistics.median(each.span_s for each in boots), "s"),
        Figure("boot of an empty home", bare.span_s, "s"),
        Figure("memory after boot", max(0.0, statistics.median(b.rss_bytes for b in boots) / 1e6), "MB"),
        Figure("memory of a kernel over an empty home", bare.rss_bytes / 1e6, "MB"),
        Figure("first recall, nothing indexed", recalled.first_ms, "ms"),
        Figure("recall, all indexed: p50", recalled.p50_ms, "ms"),
        below("recall, all indexed: p99", recalled.p99_ms, "ms", GOAL_MS),
        Figure("recall, found in 5", 100 * recalled.found, "%"),
        Figure("indexed", home.pages / recalled.index_s, "documents/s"),
        Figure("memory.db", recalled.db_bytes / 1e6, "MB"),
        Figure("memory after all was indexed", recalled.rss_bytes / 1e6, "MB"),
        Figure("fsync", fsync_us, "us"),
        *_turns(size),
    )
    notes = (
        f"{home.processes:,} processes of {home.each} pages (four in five shared), one of {home.large:,}: "
        f"{home.pages:,} entries; made in {made.span_s:.0f} s",
        f"{size.rounds} rounds of {size.busy} processes with {size.turns} turns each",
    )
    return Report("memory", figures, notes)
