"""What a person sees of memory: the page table, the machine, the frame of an earlier call, and where contexts part."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.evictions import evict
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import NotFoundError, UsageError
from mains.kernel import pages, views
from mains.kernel.desk import Desk
from mains.kernel.pagetable import Entry, PageTable
from mains.kernel.ports import Message, Reply, Request, Signal, Tool


def talk(request: Request) -> Reply:
    """Say the last message again; `look` first calls a tool, and `recall` looks something up."""
    last = request.messages[-1]
    if last.role == "user" and last.text.startswith("look"):
        return calls(call("receive", timeout_s=0))
    return says(f"you said {last.text}")


async def conversation(world: World, kernel: Desk, *texts: str) -> int:
    pid = await kernel.spawn(world.program("talker", "tools: [receive]", "Be kind."), conversation=True)
    for text in texts:
        await kernel.send(pid, text)
        await world.until_state(kernel, pid, "WAITING", "message")
    return pid


def drawn(table: PageTable) -> list[tuple[str, str, str]]:
    return [(each.handle, each.kind, each.where) for each in table.pages]


SUMMARY = Message(role="user", text="They talked.", kind="summary")


async def test_a_page_table_tells_kinds_places_and_turns(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello", "look here")
        table = await kernel.mem(pid)
        assert drawn(table) == [
            ("", "program", "pinned"), ("mem:0", "message", "frame"), ("mem:1", "reply", "frame"),
            ("mem:2", "message", "frame"), ("mem:3", "reply", "frame"), ("mem:4", "result", "frame"),
            ("mem:5", "reply", "frame"),
        ]  # fmt: skip
        assert [each.turn for each in table.pages] == [0, 1, 1, 2, 2, 2, 3]
        assert [each.used for each in table.pages] == [3, 3, 3, 3, 3, 3, 0], "no model has seen the last reply yet"
        assert (table.calls, table.stable, table.evictions, table.evicted) == (3, 2, 0, 0)
        assert table.frame_tokens == sum(each.tokens for each in table.pages)
        assert table.pages[1].words == "hello"
        history = pages.history(kernel.journal.rows, views.present(kernel.journal, pid))
        assert [each.bytes for each in table.pages] == [len(each.data) for each in history]


async def test_what_was_evicted_is_drawn_where_it_was_and_what_stands_for_it_behind_it(world: World) -> None:
    stub = Message(role="tool", text="[a result]", kind="stub", call_id="call_2_1", name="receive")
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello", "look here")
        await evict(kernel, pid, "three", (4, 5, (stub,)))
        await world.until_state(kernel, pid, "WAITING", "message")
        table = await kernel.mem(pid)
        assert drawn(table)[5:7] == [("mem:4", "result", "evicted"), ("", "stub", "frame")]
        assert [(each.position, each.until) for each in table.pages[5:7]] == [(4, 5), (4, 5)]
        assert (table.calls, table.stable, table.evictions) == (4, 2, 1)
        assert table.pages[5].used == 3, "the last turn that saw it"
        assert table.pages[6].used == 4
        await evict(kernel, pid, "four", (0, 6, (SUMMARY,)))
        await world.until_state(kernel, pid, "WAITING", "message")
        table = await kernel.mem(pid)
        assert [each.where for each in table.pages] == ["pinned", *["evicted"] * 6, *["frame"] * 5]
        assert [each.kind for each in table.pages if not each.handle] == ["program", "summary"]
        assert [each.used for each in table.pages[1:7]] == [4, 4, 4, 4, 3, 4], "the stub had its place before"
        assert (table.resident, table.pinned, table.standing, table.evicted) == (6, 1, 1, 6)
        assert (table.calls, table.stable, table.evictions) == (5, 2, 2)


async def test_a_rule_within_what_was_evicted_stays_where_it_was(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello")
        await kernel.send(pid, "Never lie.", rule=True)
        await world.until_state(kernel, pid, "WAITING", "message")
        rule = Message(role="user", text="Never lie.", name="a person", kind="rule")
        await evict(kernel, pid, "three", (0, 4, (rule, SUMMARY)))
        await world.until_state(kernel, pid, "WAITING", "message")
        assert drawn(await kernel.mem(pid))[1:6] == [
            ("mem:0", "message", "evicted"), ("mem:1", "reply", "evicted"), ("mem:2", "rule", "pinned"),
            ("mem:3", "reply", "evicted"), ("", "summary", "frame"),
        ]  # fmt: skip


async def test_what_is_looked_up_counts_as_used(world: World) -> None:
    recalled = Message(role="user", text="[mem:1] you said hello", kind="recall")
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello", "two")
        await evict(kernel, pid, "three", (0, 2, (SUMMARY,)), (2, 4, (recalled,)))
        await world.until_state(kernel, pid, "WAITING", "message")
        table = await kernel.mem(pid)
        assert table.faults.prefetched == 0, "what stands in place of others was not looked up"
        assert [each.used for each in table.pages[1:3]] == [2, 2]


async def test_a_fork_has_the_pages_and_turns_of_its_source(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello", "look here")
        await evict(kernel, pid, "three", (0, 2, (SUMMARY,)))
        await world.until_state(kernel, pid, "WAITING", "message")
        fork = await kernel.fork(pid)
        source, forked = await kernel.mem(pid), await kernel.mem(fork)
        assert forked.pages == source.pages
        assert (forked.calls, forked.evictions, source.calls) == (0, 0, 4)
        await kernel.send(fork, "four")
        await world.until_state(kernel, fork, "WAITING", "message")
        again = await kernel.mem(await kernel.fork(fork))
        assert [each.turn for each in again.pages][-4:] == [4, 4, 5, 5]
        assert again.pages == (await kernel.mem(fork)).pages


async def test_the_machine_counts_each_page_for_each_process_that_has_it(world: World) -> None:
    async with world.open(talk) as kernel:
        first = await conversation(world, kernel, "hello", "look here", "three")
        fork = await kernel.fork(first)
        await kernel.send(fork, "mine")
        await world.until_state(kernel, fork, "WAITING", "message")
        third = await kernel.fork(fork)
        await conversation(world, kernel, "hello")
        rows = kernel.journal.rows
        every = [pages.history(rows, p) for p in kernel.journal.processes("process_all")]
        memory = await kernel.memory()
        own = [(place.page, len(place.data)) for each in every for place in each]
        assert memory.entries == len(own)
        assert memory.entry_bytes == sum(size for _, size in own)
        assert memory.stored_bytes == sum(dict(own).values())
        assert memory.ratio == round(memory.entry_bytes / memory.stored_bytes, 4)
        assert memory.contexts == 4
        having = {page: sum(page in {place.page for place in each} for each in every) for page, _ in own}
        assert len(memory.shared) == 10
        assert {each.page: each.processes for each in memory.shared}.items() <= having.items()
        assert [each.processes for each in memory.shared] == sorted(having.values(), reverse=True)[:10]
        assert memory.shared[0].processes == 4
        assert {each.kind for each in memory.shared} >= {"program", "message", "reply"}
        assert memory.frames[0].pid in (fork, third)
        assert memory.index_bytes == 0
        assert memory.database_bytes > memory.pages.bytes
        (world.folder / "home" / "memory.db").write_bytes(b"x" * 10)
        assert (await kernel.memory()).index_bytes == 10


async def test_an_empty_home_has_a_memory(world: World) -> None:
    async with world.open(talk) as kernel:
        memory = await kernel.memory()
        assert (memory.ratio, memory.entries, memory.shared, memory.frames) == (1.0, 0, [], [])


# ---------------------------------------------------------------------------------------------- looking back


def shown(seen: Any) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
    messages = tuple(msgspec.json.decode(each, type=Message) for each in seen.messages)
    return messages, msgspec.json.decode(seen.tools, type=tuple[Tool, ...])


async def test_every_frame_that_was_shown_is_made_again_byte_for_byte(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello", "look here")
        await evict(kernel, pid, "three", (0, 2, (SUMMARY,)))
        await world.until_state(kernel, pid, "WAITING", "message")
        asked = [notice.seq for notice in await kernel.history(pid) if notice.kind == "asked"]
        assert len(asked) == len(world.asked) == 4
        for turn, (seq, request) in enumerate(zip(asked, world.asked, strict=True), 1):
            for at in (seq, seq + 1):  # the reply came later
                seen = await kernel.seen(pid, at)
                assert shown(seen) == (request.messages, request.tools)
                assert (seen.seq, seen.turn, seen.attempt, seen.engine, seen.agree) == (seq, turn, 1, "scripted", True)
                assert seen.journalled == seen.made


async def test_what_cannot_be_looked_back_at_is_told(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel)
        later = await conversation(world, kernel, "hello")
        last = (await kernel.history(later))[-1].seq
        first = (await kernel.history(later))[0].seq
        with pytest.raises(UsageError, match=f"no event {last + 50} yet: the last one is {last}"):
            await kernel.seen(later, last + 50)
        with pytest.raises(UsageError, match=f"began with event {first}"):
            await kernel.seen(later, first - 1)
        with pytest.raises(UsageError, match="had made no model call until event"):
            await kernel.seen(pid, last)
        with pytest.raises(NotFoundError, match="no process 99"):
            await kernel.seen(99, 1)
        with pytest.raises(NotFoundError, match="no process"):
            await kernel.fork(2**70, 1)
        with pytest.raises(UsageError, match="the last one is"):
            await kernel.fork(pid, 2**70)
        await kernel.signal(later, Signal.KILL)
        await kernel.remove([later])
        with pytest.raises(NotFoundError, match=f"process {later} was removed, and its history with it"):
            await kernel.seen(later, last)


async def test_a_frame_that_is_not_the_one_that_was_journalled_is_told(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello")
        last = (await kernel.history(pid))[-1].seq
        [(_, _, page, data)] = pages.span(kernel.journal.rows, views.present(kernel.journal, pid), 0, 1)
    path = next((world.folder / "home").glob("*.db"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE page SET bytes = ? WHERE hash = ?", (data.replace(b"hello", b"hallo"), page))
    database.close()
    async with mains.open(world.folder / "home", engines=[mains.ScriptedEngine.of(talk)]) as kernel:
        seen = await kernel.seen(pid, last)
        assert seen.agree is False
        assert seen.made != seen.journalled


# ------------------------------------------------------------------------------------------------ contrast


async def test_contexts_part_where_they_part(world: World) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello")
        fork = await kernel.fork(pid)
        same = await kernel.diff(pid, fork)
        assert (same.shared, same.same_opening, same.same_frame, same.differs) == (3, True, True, [])
        for each, text in ((pid, "red"), (fork, "blue")):
            await kernel.send(each, text)
            await world.until_state(kernel, each, "WAITING", "message")
        found = await kernel.diff(pid, fork, full=True)
        assert (found.shared, found.same_frame) == (3, False)
        assert [(each.handle, each.kind, each.who, each.text) for each in found.one.behind] == [
            ("mem:2", "message", "user a person", "red"), ("mem:3", "reply", "assistant", "you said red"),
        ]  # fmt: skip
        assert [each.words for each in found.other.behind] == ["blue", "you said blue"]
        assert (await kernel.diff(pid, fork)).one.behind[0].text == ""
        with pytest.raises(NotFoundError, match="no process 99"):
            await kernel.diff(pid, 99)


async def test_programs_tools_and_inputs_that_differ_are_named(world: World) -> None:
    async with world.open(by_turn(says("done"))) as kernel:
        front = "inputs: {n: number, language: text}"
        one = await kernel.spawn(world.program("p", front), {"n": "1", "language": "x" * 500})
        other = await kernel.spawn(world.program("q", f"{front}\ntools: [sleep]"), {"n": "2", "language": "x" * 501})
        for each in (one, other):
            await kernel.wait(each, 10)
        found = await kernel.diff(one, other)
        assert not found.same_opening
        assert found.shared == 1, "the reply: openings are told apart from what grew"
        assert [(each.handle, each.kind) for each in found.one.behind] == [("", "program"), ("", "input")]
        told = {(each.what, each.name): (each.one, each.other) for each in found.differs}
        assert told["input", "n"] == ("1", "2")
        assert told["tool", "sleep"][0] is None
        long = told["input", "language"]
        assert long[0] != long[1]
        assert len(str(long[0])) < 250
        assert ("program", "") in told


async def test_entries_are_whole_in_json(world: World, tmp_path: Path) -> None:
    async with world.open(talk) as kernel:
        pid = await conversation(world, kernel, "hello")
        decoded = msgspec.json.decode(msgspec.json.encode(await kernel.mem(pid)), type=PageTable)
        assert decoded == await kernel.mem(pid)
        assert isinstance(decoded.pages[0], Entry)
