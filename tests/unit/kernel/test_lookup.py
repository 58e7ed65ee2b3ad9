"""`read` and `recall`: what has left a frame is found again, word for word, and nobody else's memory is."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path

import pytest
from tests.unit.kernel.test_paging import FRONT, is_summary, look
from tests.unit.kernel.world import Answer, World, call, calls, says

import mains
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Reply, Request, Signal, ToolCall


def lookups(turns: int, *made: Reply) -> Answer:
    """A model that reads so many reports, then makes these replies."""
    count = 0

    def answer(request: Request) -> Reply:
        nonlocal count
        if is_summary(request):
            return says("Reports were read.")
        count += 1
        return calls(call("look", n=count)) if count <= turns else made[min(count - turns, len(made)) - 1]

    return answer


async def _made(kernel: Desk, pid: int, turns: int) -> bool:
    """Whether a process has made so many turns and rests."""
    outcome = await kernel.outcome(pid)
    return outcome.turns == turns and outcome.state == "WAITING"


async def _holds(home: Path, *texts: bytes) -> bool:
    """Whether the index holds these texts, in its file or in the write-ahead log of that."""
    return all(_count(home, text) for text in texts)


def _count(home: Path, text: bytes) -> int:
    return sum(file.read_bytes().count(text) for file in home.glob("memory.db*"))


def last_results(world: World) -> list[Message]:
    return [message for message in world.asked[-1].messages if message.role == "tool"]


async def test_what_was_evicted_is_read_again_word_for_word(world: World) -> None:
    script = lookups(20, calls(call("read", handle="mem:1")), says("done"))
    async with world.open(script, devices=[mains.device(look)]) as kernel:
        pid = await kernel.spawn(world.program("p", FRONT))
        assert (await kernel.wait(pid, 60)).result == "done"
    given = last_results(world)[-1].text
    head, _, text = given.partition("\n")
    assert head.startswith("[mem:1: characters 0-") and look(1).startswith(text) and len(text) > 1_000


async def test_a_range_is_read_by_lines_and_by_characters(world: World) -> None:
    script = lookups(
        8,
        calls(call("read", handle="mem:3", range="lines 58-60"), call("read", handle="mem:3", range="characters 0-9")),
        says("done"),
    )
    async with world.open(script, devices=[mains.device(look)]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", FRONT)), 60)
    by_lines, by_characters = (message.text.partition("\n")[2] for message in last_results(world)[-2:])
    assert by_lines == "\n".join(look(2).splitlines()[57:60])
    assert by_characters == look(2)[:9]


async def test_what_cannot_be_read_is_told(world: World) -> None:
    handles = ["mem:999", "mem:x", "input:none", "note", "", "mem:0"]
    made = [call("read", handle=handle) for handle in handles] + [call("read", handle="mem:0", range="all of it")]
    made.append(call("read", handle="mem:0", range=f"lines 1-{'9' * 5_000}"))
    async with world.open(lookups(2, calls(*made), says("done")), devices=[mains.device(look)]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", FRONT)), 60)
    told = [message.text for message in last_results(world)[-8:]]
    assert all(text.startswith("error: there is no `") for text in told[:5])
    assert "look" in told[5] and told[6].startswith("error: `all of it` is no range")
    assert told[7].startswith("error: `lines 1-999") and told[7].endswith("or `characters 0-4000`")


async def test_recall_finds_the_place_and_leaves_out_what_stands_in_the_frame(world: World) -> None:
    script = lookups(20, calls(call("recall", query="the number 7031", k=3)), says("done"))
    async with world.open(script, devices=[mains.device(look)]) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", FRONT)), 60)
    places = re.findall(r"^mem:(\d+) \((\w+)", last_results(world)[-1].text, re.MULTILINE)
    assert places[0] == ("13", "result")  # of the seventh call: each turn has a reply and a result
    assert "7: line 31 of the report, with the number 7031" in last_results(world)[-1].text


async def test_what_short_places_leave_is_given_to_the_best(world: World) -> None:
    """All share a quarter of the frame; in equal parts the one long place would be cut to a third of that."""
    long = "the heron of the lake. " + "the heron stands in the lake and looks about. " * 100
    recall = calls(call("recall", query="the heron of the lake", k=3))
    replies = iter([says(long), says("a lake"), says("a heron"), recall, says("x")])
    async with world.open(lambda _: next(replies)) as kernel:
        front = "tools: [recall]\nframe_tokens: 4000\nmax_tokens: 200"
        pid = await kernel.spawn(world.program("p", front), {"prompt": "go"}, conversation=True)
        await world.until_state(kernel, pid, "WAITING")
        for turns in (2, 3, 5):
            await kernel.send(pid, "go on")
            await world.until(partial(_made, kernel, pid, turns))
    told = last_results(world)[-1].text
    sizes = [len(part) for part in re.split(r"^mem:.*$", told, flags=re.MULTILINE)[1:]]
    assert len(sizes) == 3 and sizes[0] > 1_500 and sum(sizes) < 4000 / 4 * 3


async def test_nobody_finds_what_another_process_has_read(world: World) -> None:
    front = "tools: [recall, read]"
    replies = iter([says("the password is swordfish"), calls(call("recall", query="swordfish password")), says("x")])
    async with world.open(lambda _: next(replies)) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", front)), 60)
        await kernel.wait(await kernel.spawn(world.program("p", front)), 60)
    assert last_results(world)[-1].text == "nothing in your memory fits that"


async def test_a_fork_finds_what_its_source_had_and_nothing_later(world: World) -> None:
    replies = iter(
        [
            says("alpha-one was said"),
            says("beta-two was said"),
            calls(call("recall", query="beta-two"), call("recall", query="alpha-one")),
            says("done"),
        ]
    )
    async with world.open(lambda _: next(replies)) as kernel:
        source = await kernel.spawn(world.program("p", "tools: [recall]"), {"prompt": "go"}, conversation=True)
        await world.until_state(kernel, source, "WAITING")
        fork = await kernel.fork(source)
        await kernel.send(source, "again")
        await world.until(lambda: _made(kernel, source, 2))
        await kernel.send(fork, "look")
        await world.until(lambda: _made(kernel, fork, 3))
    later, earlier = (message.text for message in last_results(world)[-2:])
    assert "beta" not in later and "alpha-one was said" in earlier


async def test_a_long_input_is_shown_in_part_and_paged_in(world: World) -> None:
    text = "\n".join(f"entry {n}: the code of item {n} is K{n * 7919}" for n in range(40_000))
    made = [
        calls(
            call("read", handle="input:ledger", range="lines 20000-20002"), call("recall", query="code of item 31234")
        ),
        says("done"),
    ]
    front = "inputs: {ledger: file}\nframe_tokens: 8000"
    (world.folder / "ledger.txt").write_text(text)
    async with world.open(lookups(0, *made)) as kernel:
        pid = await kernel.spawn(
            world.program("p", front, "Use {{ledger}}."), {"ledger": str(world.folder / "ledger.txt")}
        )
        assert (await kernel.wait(pid, 120)).result == "done"
    first = world.asked[0]
    assert len(first.messages[0].text) < 12_000 and "input:ledger" in first.messages[0].text
    assert [tool.name for tool in first.tools] == ["read", "recall"]
    by_range, by_search = (message.text for message in last_results(world)[-2:])
    assert by_range.endswith(text.split("\n")[20_001]) and text.split("\n")[19_999] in by_range
    assert f"K{31_234 * 7919}" in by_search


async def test_nothing_of_a_removed_process_is_left_in_the_index(world: World) -> None:
    replies = iter([says("the canary is xylophone"), calls(call("recall", query="xylophone")), says("done"), says("x")])
    async with world.open(lambda _: next(replies)) as kernel:
        (world.folder / "old.txt").write_text("a marimba for the marimba player. " * 2_000)
        front = "inputs: {old: file}\nframe_tokens: 3000\ntools: [recall]"
        gone = await kernel.spawn(world.program("p", front), {"old": str(world.folder / "old.txt")}, conversation=True)
        await kernel.send(gone, "say it")
        await world.until(lambda: _made(kernel, gone, 1))
        await kernel.send(gone, "find it")
        await world.until(lambda: _made(kernel, gone, 3))
        home = world.folder / "home"
        await world.until(lambda: _holds(home, b"xylophone", b"marimba"))
        await kernel.signal(gone, Signal.KILL)
        await kernel.remove([gone])
        assert not _count(home, b"xylophone") + _count(home, b"marimba")


async def test_notes_are_read_and_recalled(world: World) -> None:
    replies = iter(
        [
            calls(call("note", text="The deposit box is number 4411.")),
            calls(
                call("recall", query="number of the deposit box"),
                call("read", handle="note:1"),
                call("read", handle="note:2"),
            ),
            says("done"),
        ]
    )
    async with world.open(lambda _: next(replies)) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [note, recall, read]")), 60)
    recalled, read, nothing = (message.text for message in last_results(world)[-3:])
    assert "note:1:\n> The deposit box is number 4411." in recalled
    assert read == "The deposit box is number 4411." and nothing.startswith("error: there is no `note:2`")


ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000000) SELECT max(x) FROM n"


@pytest.mark.parametrize("made", [call("read", handle="note:1"), call("recall", query="a paper")])
async def test_lookups_that_run_out_of_time_leave_no_thread_at_work(world: World, made: ToolCall) -> None:
    """More of them than there are threads, each in a query that takes minutes; others get a thread all the same."""
    replies = iter([calls(*[made] * 8), calls(*[made] * 8), says("done")])
    async with world.open(lambda _: next(replies), device_timeout_s=0.3) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [read, recall, note]"), paused=True)
        journal, sql = kernel.journal, kernel.journal._queries
        journal._queries = sql | {"note_live": f"{ENDLESS} WHERE ?1 != ?2"}  # for readers: the writer has its own
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 60)).result == "done"
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "a thread"), 10) == "a thread"
        journal._queries = sql
    assert len(last_results(world)) == 16
    assert all(message.text.startswith("error: ") for message in last_results(world))
