"""A thousand forks of a process with 100,000 tokens: seconds, bytes on disk, memory; and that each has the same frame.

The source is a conversation of a real kernel whose messages and replies make up the tokens; it rests, so its forks
rest, too, and nothing but the forks is measured. All are asked for at once. Bytes are those of the database after its
write-ahead log was taken over, and of the log that stood beside it before. The frame of a fork is read page by page
and hashed, and compared with what the source's record said before the first fork and says after the last.

Then forks of a fork of a fork, and the same again on a source of which old turns have left the frame. Beside it the
former way on a copy of the same home: the same forks, and for each all rows of the source's page table copied.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from functools import partial
from pathlib import Path

import msgspec

import mains
from bench import kernel, machine
from bench.child import in_child
from bench.report import Figure, Report, below
from mains.engines.scripted import ScriptedEngine
from mains.errors import KernelPanic
from mains.kernel import audit, cover, orders, pages, reckon
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Usage
from mains.kernel.process import Process
from mains.kernel.tx import Tx

GOAL_S, GOAL_MB = 1.0, 20
_WORD = "the report says that pump {0} at site {0} was seen {0} times; "
_REPLY_WORDS = 8
_WINDOW = 1_000_000


class Size(msgspec.Struct, frozen=True):
    """Tokens of the source, of each of its messages, forks, and forks in a generation of forks of forks."""

    tokens: int
    message: int
    forks: int
    family: int


FULL = Size(100_000, 950, 1_000, 100)
QUICK = Size(6_000, 300, 40, 4)


class Made(msgspec.Struct, frozen=True):
    """A source: its pid, the tokens of its frame and of its whole context, its pages, its evictions."""

    pid: int
    frame_tokens: int
    tokens: int
    pages: int
    covers: int


class Forked(msgspec.Struct, frozen=True):
    """What the forks cost, and how many frames differ from the source's."""

    span_s: float
    cpu_s: float
    db_bytes: int
    wal_bytes: int
    rss_bytes: int
    differing: int
    source_changed: bool


def _text(number: int, tokens: int) -> str:
    text = _WORD.format(number * 7919) * (tokens * 3 // 40)
    return text[: tokens * 3]


def make(folder: str, size: Size | dict[str, int], evicted: bool) -> Made:
    """A conversation of so many tokens. `evicted`: it has half as many again, and old turns became a summary."""
    return kernel.run(_make(Path(folder), msgspec.convert(size, Size), evicted))


async def _make(folder: Path, size: Size, evicted: bool) -> Made:
    def answer(request: Request) -> Reply:
        text = f"Noted, {len(request.messages)}." + " and so on" * _REPLY_WORDS
        return Reply(text, usage=Usage(100, 0, 30))

    whole = size.tokens * 3 // 2 if evicted else size.tokens
    limit = size.tokens * 5 // 4 if not evicted else size.tokens * 9 // 10
    path = folder / "talker.md"
    front = f"frame_tokens: {limit}\nmax_tokens: 200"
    path.write_text(f"---\nname: talker\ndescription: talks\n{front}\n---\nYou note what you are told.\n")
    settings = mains.Settings(summary_tokens_max=1_024)
    async with mains.open(
        folder / "home", engines=[ScriptedEngine.of(answer, context_tokens=_WINDOW)], settings=settings
    ) as desk:
        pid = await desk.spawn(path, conversation=True)
        sent = 0
        while sent < whole:
            await desk.send(pid, _text(sent, size.message))
            await kernel.until(partial(_rests, desk, pid))
            sent += size.message + 50
        p = _process(desk, pid)
        if bool(p.covers) != evicted:
            raise KernelPanic(f"the source has {p.covers} evictions")
        return Made(pid, p.frame_tokens, sent, p.length, p.covers)


def _process(desk: Desk, pid: int) -> Process:
    [p] = desk.journal.processes("process_get", pid)
    return p


def _rests(desk: Desk, pid: int) -> bool:
    p = _process(desk, pid)
    if p.idle and p.detail:
        raise KernelPanic(p.detail)
    return p.idle and not p.mail


def fork(folder: str, pid: int, count: int, way: str) -> Forked:
    """Fork so often, as the kernel does (`maps`), the former way (`rows`), or forks of forks (`family`)."""
    return kernel.run(_fork(Path(folder), pid, count, way))


async def _fork(folder: Path, pid: int, count: int, way: str) -> Forked:
    database = folder / "home" / "mains.db"
    async with mains.open(folder / "home", engines=[ScriptedEngine.of(_silent, context_tokens=_WINDOW)]) as desk:
        machine.settle()
        before_db, before_rss = database.stat().st_size, machine.rss_bytes()
        source = _process(desk, pid)
        started, cpu = time.perf_counter(), time.process_time()
        if way == "family":
            pids = await _family(desk, pid, count)
        elif way == "rows":
            pids = await _copied(desk, source, count)
        else:
            pids = list(await asyncio.gather(*(desk.fork(pid) for _ in range(count))))
        span_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        wal_bytes = database.with_name(database.name + "-wal").stat().st_size
        machine.settle()
        rss_bytes = machine.rss_bytes() - before_rss
        differing = sum(_frame_of(desk, each) != source.frame for each in pids)
        changed = _process(desk, pid) != source
        if way != "rows" and (faults := audit.verify(desk.journal) + reckon.verify(desk.journal)):
            raise KernelPanic(f"the audit found {len(faults)} faults: {faults[0]}")
    db_bytes = _checkpointed(database) - before_db
    return Forked(span_s, cpu_s, db_bytes, wal_bytes, rss_bytes, differing, changed)


def _silent(request: Request) -> Reply:
    raise KernelPanic("a fork of a conversation that rests has asked the model")


async def _family(desk: Desk, pid: int, count: int) -> list[int]:
    """Forks of the source, of one of those, and of one of theirs, so many in each generation."""
    pids: list[int] = []
    for _ in range(3):
        made = list(await asyncio.gather(*(desk.fork(pid) for _ in range(count))))
        pids, pid = [*pids, *made], made[-1]
    return pids


async def _copied(desk: Desk, source: Process, count: int) -> list[int]:
    """As it was before contexts were mapped: each fork gets a row for each page."""
    world = desk._kernel.world
    grown = cover.grown(source)

    def op(tx: Tx) -> int:
        pid = orders.fork_of(tx, world, source.pid)
        places = tx.rows("context_span", source.pid, 0, grown)
        tx.many("context_insert", [(pid, position, page) for position, page, _ in places])
        return pid

    return list(await asyncio.gather(*(desk.journal.commit(op, "fork") for _ in range(count))))


def _frame_of(desk: Desk, pid: int) -> str:
    """The hash of a frame, made from its pages; the one of its record has to be the same."""
    p = _process(desk, pid)
    made = pages.frame_hash(p, [place.page for place in pages.frame(desk.journal.rows, p)])
    return made if made == p.frame else ""


def _checkpointed(database: Path) -> int:
    """The size of a database after its log was taken over."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return database.stat().st_size


def _figures(name: str, forked: Forked, count: int, *, judged: bool) -> list[Figure]:
    db, wal = forked.db_bytes / 1e6, forked.wal_bytes / 1e6
    figures = [
        below(f"{name}: {count:,} forks", forked.span_s, "s", GOAL_S) if judged else Figure(name, forked.span_s, "s"),
        Figure(f"{name}: CPU a fork", forked.cpu_s / count * 1e6, "us"),
        below(f"{name}: database", db, "MB", GOAL_MB) if judged else Figure(f"{name}: database", db, "MB"),
        Figure(f"{name}: log before it was taken over", wal, "MB"),
        Figure(f"{name}: memory", max(0.0, forked.rss_bytes / 1e6), "MB"),
    ]
    same = forked.differing == 0 and not forked.source_changed
    return [*figures, Figure(f"{name}: frames that differ", forked.differing, "forks", "0, source as it was", same)]


def main(quick: bool) -> Report:
    """Both sources; each way on a fresh copy of the home."""
    size = QUICK if quick else FULL
    figures: list[Figure] = []
    notes = []
    for evicted in (False, True):
        name = "after evictions" if evicted else "whole"
        with machine.scratch() as folder:
            fsync_us = machine.fsync_us(folder)
            made = msgspec.convert(in_child(make, str(folder), size, evicted), Made)
            for way, count in (("maps", size.forks), ("family", size.family), ("rows", size.forks)):
                copy = folder / way
                shutil.copytree(folder / "home", copy / "home")
                forked = msgspec.convert(in_child(fork, str(copy), made.pid, count, way), Forked)
                told = {"maps": name, "family": f"{name}, three generations", "rows": f"{name}, rows copied"}[way]
                figures += _figures(told, forked, 3 * count if way == "family" else count, judged=way == "maps")
        notes.append(
            f"{name}: a source of {made.tokens:,} tokens, {made.frame_tokens:,} of them in its frame, "
            f"{made.pages} pages, {made.covers} evictions; fsync {fsync_us:.0f} us"
        )
    return Report("forks", tuple(figures), tuple(notes))
