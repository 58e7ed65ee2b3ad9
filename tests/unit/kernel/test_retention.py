"""Removal: what goes, what stays, who is refused; and by chance: no page in use is ever gone, none is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains.kernel import audit, reckon, retention
from mains.kernel.care import DAY_MS
from mains.kernel.desk import Desk
from mains.kernel.journal import Journal
from mains.kernel.ports import Reply, Request

TABLES = [
    *("process", "process_key", "checkpoint", "context", "message", "timer", "hold", "entry"),
    *("page", "page_use", "page_part", "removed"),
]


def count(kernel: Desk, table: str) -> int:
    [[found]] = kernel.journal._reader().execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(found)


def counts(kernel: Desk) -> dict[str, int]:
    return {table: count(kernel, table) for table in TABLES}


def whole(kernel: Desk) -> None:
    """The journal and the ledger hold, and no page is there that nobody names."""
    assert audit.verify(kernel.journal) == []
    assert reckon.verify(kernel.journal) == []
    assert retention.orphaned(kernel.journal) == []


async def run(kernel: Desk, program: Path, inputs: dict[str, Any] | None = None, **options: Any) -> int:
    pid = await kernel.spawn(program, inputs or {}, **options)
    await kernel.wait(pid, 10)
    return pid


async def test_nothing_of_a_removed_process_is_left(world: World) -> None:
    (world.folder / "doc.txt").write_text("a document that nobody else has")
    program = world.program("p", "inputs: {doc: file}\nbudget: 5000")
    async with world.open(lambda r: says("a result that nobody else has")) as kernel:
        before = counts(kernel)
        pid = await run(kernel, program, {"doc": str(world.folder / "doc.txt")}, key="k")
        home = kernel.journal.rows("account_get", 0)
        assert await kernel.remove([pid]) == mains.kernel.ports.Removal([pid], True)
        assert counts(kernel) == before
        assert kernel.journal.rows("account_get", 0) == home, "the sums stay"
        whole(kernel)
        with pytest.raises(mains.NotFoundError, match=f"no process {pid}"):
            await kernel.outcome(pid)
        later = await run(kernel, program, {"doc": str(world.folder / "doc.txt")}, key="k")
        assert later == pid + 1, "a number is never given twice"
        whole(kernel)
    for file in (world.folder / "home").glob("mains.db*"):
        assert (b"nobody else has" in file.read_bytes()) == (file.name == "mains.db"), "the later process has them"
    async with world.open(by_turn(says("x"))) as kernel:
        await kernel.remove([later])
    assert b"nobody else has" not in (world.folder / "home" / "mains.db").read_bytes()


async def test_a_tree_goes_together_and_the_home_keeps_its_sums(world: World) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Say"):
            return says(request.messages[0].text)
        turns = [calls(*[call("spawn", program="c", inputs={"w": w}) for w in "ab"], call("wait")), says("done")]
        return turns[min(turn_of(request), 1)]

    world.program("c", "inputs: {w: text}", "Say {{w}}.")
    program = world.program("p", "tools: [spawn(c), wait]")
    async with world.open(answer) as kernel:
        before = counts(kernel)
        pid = await run(kernel, program)
        fork = await kernel.fork(pid)
        await kernel.wait(fork)
        count_of_tree = len(await kernel.ps(every=True))
        assert (await kernel.remove([pid])).pids == list(range(count_of_tree, 0, -1))
        assert counts(kernel) == before
        whole(kernel)
        assert kernel.journal.rows("account_get", 0)[0][2] > 0


async def test_who_lives_or_is_awaited_is_not_removed(world: World) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Say"):
            return says("said")
        turns = [calls(call("spawn", program="c", inputs={"w": "a"})), calls(call("ask", question="?")), says("end")]
        return turns[min(turn_of(request), 2)]

    world.program("c", "inputs: {w: text}", "Say {{w}}.")
    program = world.program("p", "tools: [spawn(c), ask]")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "WAITING", "human")
        child = pid + 1
        await kernel.wait(child)
        with pytest.raises(mains.MainsError, match=f"process {pid} has not ended: it is WAITING") as refused:
            await kernel.remove([pid])
        assert refused.value.hint == f"`mains kill {pid}` first"
        with pytest.raises(mains.MainsError, match=f"process {pid}, the parent of process {child}, lives"):
            await kernel.remove([child])
        with pytest.raises(mains.NotFoundError, match="no process 77"):
            await kernel.remove([child, 77])
        fork = await kernel.fork(child)
        await kernel.wait(fork)
        await kernel.remove([fork])  # nobody waits for a fork
        await kernel.answer(pid, "yes")
        await kernel.wait(pid)
        alive = await kernel.spawn(program)
        await world.until_state(kernel, alive, "WAITING", "human")
        below = await kernel.fork(pid)
        await world.until(lambda: _ended(kernel, below))
        await kernel.remove([pid])
        assert [p.pid for p in await kernel.ps(every=True)] == [alive, alive + 1]
        whole(kernel)


async def _ended(kernel: Desk, pid: int) -> bool:
    return (await kernel.outcome(pid)).state == "EXITED"


async def test_a_page_that_somebody_else_names_stays(world: World) -> None:
    program = world.program("p", "inputs: {doc: file}")
    (world.folder / "doc.txt").write_text("shared")
    async with world.open(lambda r: says("the same")) as kernel:
        one = await run(kernel, program, {"doc": str(world.folder / "doc.txt")})
        two = await run(kernel, program, {"doc": str(world.folder / "doc.txt")})
        shown = await kernel.show(two)
        await kernel.remove([one])
        assert await kernel.show(two) == shown
        whole(kernel)


async def test_the_daily_prune_removes_what_is_old_and_nothing_else(world: World) -> None:
    program = world.program("p")
    settings: dict[str, Any] = {"retention_days": 2, "erase_rows_max": 3, "checkpoint_events": 5}
    async with world.open(by_turn(says("x")), **settings) as kernel:
        old = await run(kernel, program)
        world.clock.advance(DAY_MS)
        new = await run(kernel, program)
        events = count(kernel, "event")
        world.clock.advance(DAY_MS + 1_000)
        await world.until(lambda: _fewer(world, kernel, events))
        assert [p.pid for p in await kernel.ps(every=True)] == [new]
        whole(kernel)
    async with world.open(by_turn(says("x")), **settings) as kernel:
        whole(kernel)
        assert (await kernel.outcome(new)).result == "x"
        assert old not in [p.pid for p in await kernel.ps(every=True)]


async def _fewer(world: World, kernel: Desk, events: int) -> bool:
    world.clock.advance(20)
    return count(kernel, "event") < events and not kernel.journal.rows("removed_next")


async def test_a_dry_run_says_what_a_prune_does(world: World) -> None:
    program = world.program("p")
    async with world.open(by_turn(says("x"))) as kernel:
        first = await run(kernel, program)
        world.clock.advance(DAY_MS // 2)
        await run(kernel, program)
        before = counts(kernel)
        assert (await kernel.prune(0.4, dry_run=True)).pids == [first]
        assert counts(kernel) == before
        assert (await kernel.prune(0.4)).pids == [first]
        assert (await kernel.prune(0.4)).pids == []
        with pytest.raises(mains.MainsError, match="an age is 0 to"):
            await kernel.prune(-1)


async def test_growth_is_bounded(world: World) -> None:
    """Generations that come and go leave nothing that grows but the tombstones' numbers; freed pages are used again."""
    program = world.program("p", "inputs: {w: text}")
    database = world.folder / "home" / "mains.db"
    sizes, gaps = [], []
    async with world.open(lambda r: says("r" * 20_000), checkpoint_events=40, wal_pages=50) as kernel:
        for generation in range(8):
            pids = [await run(kernel, program, {"w": f"{generation} {n} " + "x" * 20_000}) for n in range(10)]
            world.clock.advance(DAY_MS)
            await kernel.prune(0.5)
            assert pids
            sizes.append(database.stat().st_size)
            gaps.append(count(kernel, "cut"))
        whole(kernel)
    assert sizes[-1] <= sizes[1] + 65_536, sizes
    assert gaps[-1] <= 11 * 8


async def test_verify_finds_a_gap_that_is_not_on_record_as_it_is(world: World) -> None:
    program = world.program("p")
    async with world.open(lambda r: says("x")) as kernel:
        pids = [await run(kernel, program) for _ in range(3)]
        await kernel.remove([pids[1]])
    with contextlib.closing(sqlite3.connect(world.folder / "home" / "mains.db", isolation_level=None)) as spoiler:
        [(first, last, crc)] = spoiler.execute("SELECT first, last, crc FROM cut").fetchall()
        for change in ("first = first + 1", "last = last - 1", "last = last + 1", "crc = crc + 1"):
            spoiler.execute(f"UPDATE cut SET {change}")
            assert (await _faults(world)) != [], change
            spoiler.execute("UPDATE cut SET first = ?, last = ?, crc = ?", (first, last, crc))
        spoiler.execute("INSERT INTO cut VALUES (100000, 100001, 7)")
        assert (await _faults(world)) != []
        spoiler.execute("DELETE FROM cut WHERE first = 100000")
        assert (await _faults(world)) == []


async def _faults(world: World) -> list[str]:
    path = world.folder / "home" / "mains.db"
    journal = Journal(path, mains.Settings(), lambda: 0, lambda _: None)
    try:
        return audit.verify(journal)
    finally:
        await journal.close()


class Grinder:
    """Random spawns, forks, messages, ends and removals, over few texts so that pages are shared."""

    def __init__(self, world: World, kernel: Desk, chance: random.Random) -> None:
        self.kernel, self.chance = kernel, chance
        self.programs = [world.program(f"p{n}", "inputs: {doc: file, w: text}\ntools: [receive]") for n in (1, 2)]
        self.docs = [world.folder / f"{name}.txt" for name in "ab"]
        for doc in self.docs:
            doc.write_text(doc.name)

    async def step(self) -> str:
        every = await self.kernel.ps(every=True)
        ended = [p.pid for p in every if p.state == "EXITED"]
        alive = [p.pid for p in every if p.state != "EXITED"]
        doing = self.chance.choice(["spawn", "spawn", "fork", "send", "send", "kill", "rm", "rm", "pause"])
        if doing == "spawn":
            inputs = {"doc": str(self.chance.choice(self.docs)), "w": self.chance.choice("xy")}
            await self.kernel.spawn(self.chance.choice(self.programs), inputs, paused=self.chance.random() < 0.2)
        elif doing == "rm" and ended:
            await self.kernel.remove(self.chance.sample(ended, min(len(ended), 2)))
        elif doing == "fork" and every:
            await self.kernel.fork(self.chance.choice(every).pid)
        elif alive:
            await self._to_one(doing, self.chance.choice(alive))
        return doing

    async def _to_one(self, doing: str, pid: int) -> None:
        if doing == "send":
            await self.kernel.send(pid, self.chance.choice(["stop", "go on", "go on"]))
        elif doing == "kill":
            await self.kernel.signal(pid, mains.Signal.KILL)
        elif doing == "pause":
            await self.kernel.signal(pid, self.chance.choice([mains.Signal.STOP, mains.Signal.CONT]))


def _reads(request: Request) -> Reply:
    if request.messages[-1].text.endswith("stop"):
        return says("stopped")
    return calls(call("receive"))


@pytest.mark.parametrize("seed", range(6))
async def test_no_page_in_use_is_ever_gone_and_none_is_left_behind(world: World, seed: int) -> None:
    chance = random.Random(seed)
    async with world.open(_reads, erase_rows_max=chance.choice([1, 3, 100]), checkpoint_events=7) as kernel:
        empty = counts(kernel)
        grinder = Grinder(world, kernel, chance)
        for step in range(60):
            try:
                doing = await grinder.step()
            except mains.MainsError:
                continue  # refused: it lives below, or has ended meanwhile
            if doing == "rm" or step % 10 == 0:
                whole(kernel)
        for p in await kernel.ps():
            if (await kernel.outcome(p.pid)).state != "EXITED":
                await kernel.signal(p.pid, mains.Signal.KILL)
        await world.until(lambda: _all_ended(kernel))
        left = await kernel.ps(every=True)
        world.clock.advance(1_000)
        assert (await kernel.prune(0)).pids == sorted((p.pid for p in left), reverse=True)
        assert counts(kernel) == empty
        whole(kernel)
    async with world.open(_reads) as kernel:
        whole(kernel)


async def _all_ended(kernel: Desk) -> bool:
    await asyncio.sleep(0)
    return not await kernel.ps()
