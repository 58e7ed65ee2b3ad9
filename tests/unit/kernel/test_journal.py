"""The journal: batches, refusals, a disk that is full or broken, and what a boot makes of what it finds."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import DiskFullError, JournalError, KernelPanic, LimitError, UsageError
from mains.kernel import audit, pages
from mains.kernel.event import Exited, Noted, Spawned
from mains.kernel.journal import Batch, Journal
from mains.kernel.process import Process
from mains.kernel.tx import Tx


class Box:
    """A journal with what it told, and a way to fill its disk."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.batches: list[Batch] = []
        self.journal = Journal(path, mains.Settings(**settings), lambda: 7, self.batches.append)

    def fill_disk(self) -> None:
        """From now on the database may not grow."""
        connection = self.journal._connection
        connection.execute("PRAGMA max_page_count = 1")  # SQLite makes it what there is already

    def make_room(self) -> None:
        self.journal._connection.execute("PRAGMA max_page_count = 1000000")

    def notes(self) -> list[str]:
        return [body.decode() for _, _, _, _, body in self.journal.rows("event_of", 0, 0, 1_000)]


@asynccontextmanager
async def opened(path: Path, **settings: Any) -> AsyncIterator[Box]:
    box = Box(path, **settings)
    try:
        yield box
    finally:
        await box.journal.close()


def note(text: str) -> Callable[[Tx], str]:
    def op(tx: Tx) -> str:
        tx.append(0, Noted(text=text))
        return text

    return op


def big(tx: Tx) -> str:
    tx.append(0, Noted(text="big"))
    return pages.put(tx, "message", random.Random(tx.seq).randbytes(300_000))


def born(pid: int) -> Callable[[Tx], Process]:
    process = Process(
        pid=pid, name="p", program="", tree="", inputs="", tools="", accounts=(pid, 0), output_tokens_max=9,
        created_ms=1,
    )  # fmt: skip
    return lambda tx: tx.happen(None, Spawned(process=process, context=()))


async def test_what_arrives_together_is_committed_together_and_told_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path / "db", commits_per_batch_max=4) as box:
        order: list[int] = []

        async def commit(n: int) -> None:
            assert await box.journal.commit(note(str(n)), "n") == str(n)
            order.append(n)

        await asyncio.gather(*[commit(n) for n in range(10)])
        assert order == list(range(10))
        sizes = [len(batch.notices) for batch in box.batches]
        assert sum(sizes) == 10
        assert max(sizes) == 4, "batches are bounded"
        assert len(sizes) <= 4, "each commit had a batch of its own"
        assert [notice.seq for batch in box.batches for notice in batch.notices] == list(range(1, 11))


async def test_memory_is_told_before_any_caller_goes_on_and_after_the_disk(tmp_path: Path) -> None:
    told: list[str] = []

    def on_commit(batch: Batch) -> None:
        told.append(f"on disk: {sqlite3.connect(tmp_path / 'db').execute('SELECT count(*) FROM event').fetchone()[0]}")

    journal = Journal(tmp_path / "db", mains.Settings(), lambda: 7, on_commit)
    await journal.commit(note("one"), "n")
    told.append("caller")
    await journal.close()
    assert told == ["on disk: 1", "caller"]


REFUSALS = [UsageError("no"), LimitError("full"), ValueError("odd"), KeyError("x"), OverflowError("big")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
async def test_a_refusal_undoes_itself_and_none_of_its_neighbours(tmp_path: Path, refusal: Exception) -> None:
    def refused(tx: Tx) -> None:
        born(2)(tx)
        tx.append(0, Noted(text="never"))
        raise refusal

    async with opened(tmp_path / "db") as box:
        commit = box.journal.commit
        done = await asyncio.gather(
            commit(born(1), "a"), commit(refused, "b"), commit(note("after"), "c"), return_exceptions=True
        )
        assert done[1] is refusal
        assert done[2] == "after"
        [batch] = box.batches
        assert [p.pid for p in batch.changed] == [1]
        assert [notice.seq for notice in batch.notices] == [1, 2]
        assert [p.pid for p in box.journal.processes("process_all")] == [1]
        assert box.notes() == ['{"kind":"noted","text":"after"}']
        assert box.journal._tx.live == 1
        assert audit.replay(box.journal) == []


async def test_a_full_disk_is_told_to_the_whole_batch_and_the_journal_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as box:
        commit = box.journal.commit
        await commit(born(1), "born")
        box.fill_disk()
        done = await asyncio.gather(
            commit(note("lost"), "a"), commit(big, "b"), commit(born(2), "c"), return_exceptions=True
        )
        assert [type(each) for each in done] == [DiskFullError] * 3
        assert len(box.batches) == 1, "an undone batch was told"
        assert box.notes() == []
        assert box.journal._tx.live == 1
        box.make_room()
        assert await commit(note("kept"), "a") == "kept"
        await commit(big, "b")
        assert len(box.notes()) == 2
        assert audit.replay(box.journal) == []


async def test_a_replay_starts_at_the_checkpoint(tmp_path: Path) -> None:
    async with opened(tmp_path / "db", checkpoint_events=10) as box:
        for pid in range(1, 26):
            await box.journal.commit(born(pid), "born")
        assert box.journal.checkpoint_seq() == 20
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("UPDATE event SET body = ? WHERE seq = 5", (b"{}",))
    connection.close()
    async with opened(tmp_path / "db") as box:
        assert audit.replay(box.journal) == [], "a boot looks at what came after the checkpoint only"
        assert len(audit.verify(box.journal)) > 0, "an audit looks at everything"


class Broken:
    """A connection whose disk breaks at COMMIT."""

    def __init__(self, connection: sqlite3.Connection, errorname: str = "SQLITE_IOERR") -> None:
        self._connection = connection
        self._errorname = errorname

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            broken = sqlite3.OperationalError("disk I/O error")
            broken.sqlite_errorname = self._errorname
            raise broken
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def test_a_checkpoint_that_a_full_disk_undid_is_made_again(tmp_path: Path) -> None:
    """The disk is full at the very COMMIT: the copy for the checkpoint was made, and is undone."""
    async with opened(tmp_path / "db", checkpoint_events=4) as box:
        commit = box.journal.commit
        for pid in (1, 2):
            await commit(born(pid), "born")
        whole = box.journal._connection
        box.journal._connection = Broken(whole, "SQLITE_FULL")  # type: ignore[assignment]
        with pytest.raises(DiskFullError):
            await commit(lambda tx: [born(pid)(tx) for pid in range(3, 9)], "much")
        box.journal._connection = whole
        for pid in (3, 4, 5, 6):
            await commit(born(pid), "born")
        assert 0 < box.journal.checkpoint_seq() <= 6
        for pid in (1, 2, 3):
            await commit(lambda tx, pid=pid: tx.happen(tx.process(pid), Exited(code=0)), "exit")  # type: ignore[misc]
        assert audit.replay(box.journal) == []
    async with opened(tmp_path / "db", checkpoint_events=4) as box:
        assert audit.replay(box.journal) == [], "this home would never boot again"


async def test_a_broken_disk_ends_the_journal_and_nobody_is_told_a_lie(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as box:
        commit = box.journal.commit
        await commit(note("kept"), "a")
        whole = box.journal._connection
        box.journal._connection = Broken(whole)  # type: ignore[assignment]
        for waiting in [commit(note("x"), "a"), commit(note("y"), "b")]:
            with pytest.raises(JournalError, match="disk I/O"):
                await waiting
        box.journal._connection = whole
        with pytest.raises(JournalError, match="halted"):
            await commit(note("z"), "c")
        assert len(box.batches) == 1
        assert len(box.notes()) == 1


async def test_a_bug_of_ours_wakes_everybody_who_waits(tmp_path: Path) -> None:
    def bug(tx: Tx) -> None:
        raise KernelPanic("a rule does not hold")

    async with opened(tmp_path / "db", commits_per_batch_max=2) as box:
        commit = box.journal.commit
        before: asyncio.Future[Any] = commit(note("before"), "a")
        waiting: list[asyncio.Future[Any]] = [commit(bug, "b"), *[commit(note(str(n)), "n") for n in range(5)]]
        await asyncio.wait([before, *waiting], timeout=10)
        assert before.exception() is None or isinstance(before.exception(), JournalError)  # it may share their batch
        assert all(isinstance(each.exception(), JournalError) for each in waiting)
        with pytest.raises(JournalError):
            await asyncio.wait_for(commit(note("late"), "c"), 10)
        assert isinstance(box.journal._writer.exception(), KernelPanic)


async def test_who_comes_after_the_end_is_told_and_who_came_before_is_served(tmp_path: Path) -> None:
    box = Box(tmp_path / "db")
    last = [box.journal.commit(note(str(n)), "n") for n in range(3)]
    await box.journal.close()
    assert await asyncio.gather(*last) == ["0", "1", "2"]
    with pytest.raises(JournalError, match="closed"):
        await asyncio.wait_for(box.journal.commit(note("late"), "n"), 10)


async def test_the_queue_has_a_bound_for_orders(tmp_path: Path) -> None:
    async with opened(tmp_path / "db", commits_queued_max=3) as box:
        waiting = [box.journal.commit(note(str(n)), "n", bounded=True) for n in range(5)]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in done] == [str, str, str, LimitError, LimitError]
        assert await box.journal.commit(note("again"), "n", bounded=True) == "again"


async def test_a_cancelled_caller_loses_its_answer_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path / "db") as box:
        first = box.journal.commit(note("first"), "n")
        second = box.journal.commit(note("second"), "n")
        first.cancel()
        assert await second == "second"
        assert len(box.notes()) == 2, "the commit stands all the same"


async def test_a_home_of_a_later_mains_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "db"):
        pass
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = (tmp_path / "db").read_bytes()
    with pytest.raises(JournalError, match="schema version 99"):
        Box(tmp_path / "db")
    assert (tmp_path / "db").read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("once upon a time there was no database here at all " * 200)
    with pytest.raises(JournalError, match="not a database"):
        Box(tmp_path / "db")


async def test_an_orderly_end_leaves_one_whole_file(tmp_path: Path) -> None:
    async with World(tmp_path).open(by_turn(says("ok"))) as kernel:
        pid = await kernel.spawn(World(tmp_path).program("p"))
        await kernel.wait(pid, 10)
    assert sorted(path.name for path in (tmp_path / "home").glob("mains.db*")) == ["mains.db"]


# the kernel over it


def _fill(kernel: Any) -> sqlite3.Connection:
    connection: sqlite3.Connection = kernel.journal._connection
    connection.execute("PRAGMA max_page_count = 1")
    return connection


async def test_the_result_of_a_model_call_survives_a_full_disk(world: World) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()
    long = "word " * 60_000

    async def answer(request: Any) -> Any:
        asked.set()
        await asyncio.wait_for(gate.wait(), 10)
        return says(long)

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p"))
        await asyncio.wait_for(asked.wait(), 10)
        connection = _fill(kernel)
        gate.set()
        with pytest.raises(DiskFullError):
            for _ in range(1_000):
                await kernel.spawn(world.program("q"), {"prompt": "x" * 50_000}, paused=True)
        for _ in range(200):
            await asyncio.sleep(0)
        assert (await kernel.outcome(pid)).state == "RUNNING"
        assert not kernel.halted.is_set()
        connection.execute("PRAGMA max_page_count = 1000000")

        async def ended() -> bool:
            world.clock.advance(1_000)
            return (await kernel.outcome(pid)).state == "EXITED"

        await world.until(ended)
        assert (await kernel.outcome(pid)).result == long.strip()
    assert len(world.asked) == 1, "the call was paid for twice"


async def test_who_became_ready_on_a_full_disk_runs_once_there_is_room(world: World) -> None:
    @mains.device(read_only=True)
    def much() -> str:
        """Much."""
        return "x" * 60_000

    async with world.open(by_turn(calls(call("much")), says("ok")), devices=[much]) as kernel:
        pids = [await kernel.spawn(world.program("p", "tools: [much]"), paused=True) for _ in range(5)]
        for pid in pids:
            await kernel.signal(pid, mains.Signal.CONT)
        connection = _fill(kernel)
        for _ in range(300):
            await asyncio.sleep(0)
        connection.execute("PRAGMA max_page_count = 1000000")

        async def ended() -> bool:
            world.clock.advance(1_000)
            return all([(await kernel.outcome(pid)).state == "EXITED" for pid in pids])

        await world.until(ended)


async def test_a_disk_that_stays_full_halts_the_kernel_and_a_boot_goes_on(world: World) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    async def answer(request: Any) -> Any:
        asked.set()
        await asyncio.wait_for(gate.wait(), 10)
        return says("word " * 60_000)

    with pytest.raises(JournalError):
        async with world.open(answer, disk_full_wait_s=5.0) as kernel:
            pid = await kernel.spawn(world.program("p"))
            await asyncio.wait_for(asked.wait(), 10)
            _fill(kernel)
            gate.set()

            async def halted() -> bool:
                world.clock.advance(1_000)
                return kernel.halted.is_set()

            await world.until(halted)
            assert isinstance(kernel.failure, DiskFullError)
            with pytest.raises(DiskFullError):
                await asyncio.wait_for(kernel.send(pid, "anybody?"), 10)
            await asyncio.wait_for(kernel.wait(pid), 10)
    async with world.open(by_turn(says("ok"))) as kernel:
        assert (await kernel.wait(pid, 10)).result == "ok"


async def test_an_order_that_meets_a_broken_disk_halts_the_kernel(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.spawn(world.program("p"), paused=True)
        whole = kernel.journal._connection
        kernel.journal._connection = Broken(whole)  # type: ignore[assignment]
        with pytest.raises(JournalError, match="disk I/O"):
            await asyncio.wait_for(kernel.spawn(world.program("p")), 10)
        kernel.journal._connection = whole
        await asyncio.wait_for(kernel.halted.wait(), 10)
        assert kernel.failure is not None


async def test_a_timer_that_meets_a_broken_disk_halts_the_kernel_in_order(world: World) -> None:
    async with world.open(by_turn(calls(call("sleep", seconds=5)))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [sleep]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        whole = kernel.journal._connection
        kernel.journal._connection = Broken(whole)  # type: ignore[assignment]
        for _ in range(200):
            await asyncio.sleep(0)
        world.clock.advance(20_000)
        await asyncio.wait_for(kernel.halted.wait(), 10)
        kernel.journal._connection = whole
        with pytest.raises(JournalError):
            await asyncio.wait_for(kernel.wait(pid), 10)
