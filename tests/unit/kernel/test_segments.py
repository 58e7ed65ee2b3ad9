"""Shared segments through the doors of a kernel: who reads what when, who appends, who is refused, what stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import audit, past, retention, segment, segments
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Reply, Request

READS = "tools: [wait, ask]\nsegments: [brief]"
WRITES = "tools: [append(brief), ask]\nsegments: [brief]"


def shared(request: Request) -> list[str]:
    """The pages of segments that a frame shows, each by its handle."""
    return [message.name for message in request.messages if message.kind == "segment"]


def page(name: str, number: int) -> str:
    return f"segment:{name}/{number}"


def results(request: Request) -> list[str]:
    return [message.text for message in request.messages if message.role == "tool"]


async def until_asked(world: World, pid: int, times: int) -> None:
    """Wait until the model of a process was asked so often."""

    async def is_so() -> bool:
        return sum(request.process == pid for request in world.asked) >= times

    await world.until(is_so)


async def count(kernel: Desk, query: str, *parameters: Any) -> int:
    return len(kernel.journal.rows(query, *parameters))


# --------------------------------------------------------------------------------------------------- reading


async def test_a_process_reads_what_it_maps_and_then_what_is_new(world: World) -> None:
    program = world.program("reader", READS)
    async with world.open(by_turn(calls(call("ask", question="go on?")), says("done"))) as kernel:
        await kernel.segment_make("brief", "one\n", append_only=True)
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.segment_append("brief", "two\n")
        await kernel.segment_append("brief", "three\n")
        await kernel.answer(pid, "yes")
        assert (await kernel.wait(pid, 20)).state == "EXITED"
        first, second = world.asked
        assert shared(first) == [page("brief", 0)]
        assert shared(second) == [page("brief", number) for number in range(3)]
        assert second.messages[: len(first.messages)] == first.messages, "the prefix stays"
        told = next(message for message in first.messages if message.kind == "segment")
        assert (told.role, told.text) == ("user", "[Shared segment brief, page 0]\none\n")
        frames = list(past.frames(kernel.journal, pid))
        assert [each.past.frame_hash() for each in frames] == [each.journalled for each in frames]


async def test_a_segment_given_by_whoever_runs_it_is_mapped_too(world: World) -> None:
    async with world.open(lambda r: says("done")) as kernel:
        await kernel.segment_make("brief", "a")
        await kernel.segment_make("map", "b")
        pid = await kernel.spawn(world.program("p", "segments: [brief]"), segments=["map", "brief"])
        await kernel.wait(pid, 20)
        assert shared(world.asked[0]) == [page("brief", 0), page("map", 0)]


async def test_a_page_is_stored_once_for_all_who_map_it(world: World) -> None:
    program = world.program("reader", "segments: [brief]")
    async with world.open(lambda r: says("done")) as kernel:
        await kernel.segment_make("brief", "x" * 1_500)
        pids = [await kernel.spawn(program, {"prompt": f"number {n}"}) for n in range(5)]
        for pid in pids:
            await kernel.wait(pid, 20)
        [[holding]] = kernel.journal._reader().execute(
            "SELECT count(*) FROM page WHERE instr(bytes, ?)", (b"x" * 1_500,)
        )
        assert holding == 1
        assert all(shared(request) == [page("brief", 0)] for request in world.asked)


async def test_what_is_too_much_for_one_turn_comes_with_the_next_ones(world: World) -> None:
    program = world.program("reader", f"{READS}\nframe_tokens: 16000\nmax_tokens: 100")
    answer = by_turn(*[calls(call("ask", question="?"))] * 9, says("done"))
    async with world.open(answer, segment_page_bytes_max=3_000, segment_turn_pages_max=2) as kernel:
        view = await kernel.segment_make("brief", "".join(f"line {n} of the map\n" for n in range(900)))
        assert view.pages > 5
        pid = await kernel.spawn(program)
        for turn in range(9):
            await until_asked(world, pid, turn + 1)
            await world.until_state(kernel, pid, "WAITING", "human")
            await kernel.answer(pid, "yes")
        await kernel.wait(pid, 20)
        seen = [len(shared(request)) for request in world.asked]
        assert seen[:3] == [2, 4, 6] and seen[-1] == view.pages


async def test_the_tokens_of_one_turn_are_bounded_by_the_window(world: World) -> None:
    program = world.program("reader", "segments: [brief]\nframe_tokens: 4000\nmax_tokens: 100")
    async with world.open(lambda r: says("done"), segment_page_bytes_max=900) as kernel:
        await kernel.segment_make("brief", "word and word " * 2_000)
        await kernel.wait(await kernel.spawn(program), 20)
        assert 1 <= len(shared(world.asked[0])) <= 4


async def test_a_page_larger_than_a_view_is_shown_in_part_and_read_whole(world: World) -> None:
    program = world.program("reader", "tools: [read]\nsegments: [brief]\nframe_tokens: 4000\nmax_tokens: 100")
    text = "".join(f"line {n}\n" for n in range(700))
    answer = by_turn(calls(call("read", handle="segment:brief/0", range="lines 350-351")), says("done"))
    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", text)
        await kernel.wait(await kernel.spawn(program), 20)
        [shown] = [message for message in world.asked[0].messages if "line 699" in message.text]
        assert shown.kind == "stub" and "the whole is in memory as segment:brief/0]" in shown.text
        assert "line 349\nline 350" in results(world.asked[1])[0]


async def test_a_process_reads_no_further_than_it_has_got(world: World) -> None:
    program = world.program("reader", "tools: [read, ask]\nsegments: [brief]")

    def answer(request: Request) -> Reply:
        handles = ["segment:brief", "segment:brief/1", "segment:other", "segment:brief/x"]
        turns = [calls(call("ask", question="?")), calls(*[call("read", handle=handle) for handle in handles])]
        return [*turns, says("done")][min(turn_of(request), 2)]

    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", "one", append_only=True)
        await kernel.segment_make("other", "a secret")
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.answer(pid, "yes")
        await kernel.wait(pid, 20)
        assert results(world.asked[2])[1:] == ["one", *[
            f"error: there is no `{handle}` in your memory (handles are such as mem:0, input:NAME)"
            for handle in ("segment:brief/1", "segment:other", "segment:brief/x")
        ]]  # fmt: skip


async def test_mail_is_read_after_what_is_new(world: World) -> None:
    program = world.program("p", "segments: [brief]")
    async with world.open(lambda r: says("yes")) as kernel:
        await kernel.segment_make("brief", "one", append_only=True)
        pid = await kernel.spawn(program, conversation=True)
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "WAITING", "message")
        assert [message.text for message in world.asked[0].messages][-2:] == [
            "[Shared segment brief, page 0]\none",
            "hello",
        ]


async def test_who_maps_a_segment_keeps_names_and_no_bytes(world: World) -> None:
    """Measured with 1,000 processes and 100 kB: 2.5 kB on the disk for each (docs/memory.md)."""
    plain, mapper = world.program("plain"), world.program("mapper", "segments: [brief]")
    sizes = {}
    async with world.open(lambda r: says("done"), segment_page_bytes_max=1_000) as kernel:
        await kernel.segment_make("brief", "a line of the brief\n" * 200)
        for program in (plain, mapper):
            pids = [await kernel.spawn(program, {"prompt": f"number {n}"}) for n in range(20)]
            await asyncio.gather(*[kernel.wait(pid, 60) for pid in pids])
            sql = "SELECT (SELECT sum(length(body)) FROM event) + (SELECT sum(length(bytes)) FROM page)"
            [[sizes[program]]] = kernel.journal._reader().execute(sql)
        pages = len(shared(world.asked[-1]))
        assert pages == 4
        start = sizes[plain] // 20  # of a process, the segment itself included
        assert sizes[mapper] - sizes[plain] < 20 * (start + 100 * pages), "names of 64 characters"


# --------------------------------------------------------------------------------------------------- appending


async def test_a_process_appends_and_everybody_reads_it_in_one_order(world: World) -> None:
    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Write"):
            turns = [calls(call("append", segment="brief", text="found it")), says("written")]
            return turns[min(turn_of(request), 1)]
        return [calls(call("ask", question="?")), says("done")][min(turn_of(request), 1)]

    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", "", append_only=True)
        reader = await kernel.spawn(world.program("reader", READS))
        await world.until_state(kernel, reader, "WAITING", "human")
        writer = await kernel.spawn(world.program("writer", WRITES, "Write."))
        await kernel.wait(writer, 20)
        await kernel.answer(reader, "yes")
        await kernel.wait(reader, 20)
        text = f"[Shared segment brief, page 0, appended by process {writer} (writer)]\nfound it"
        own = [request for request in world.asked if request.process == writer][-1]
        others = [request for request in world.asked if request.process == reader][-1]
        assert results(own) == ["appended: segment:brief/0"]
        assert [m.text for m in own.messages if m.kind == "segment"] == [text]
        assert [m.text for m in others.messages if m.kind == "segment"] == [text]
        detail = await kernel.segment("brief")
        [shown] = detail.shown
        tainted = {p.pid: p.tainted for p in kernel.journal.processes("process_all")}
        assert tainted == {writer: "", reader: f"segment:brief/0, which process {writer} (writer) appended"}
        assert (shown.number, shown.process, shown.program, shown.account) == (0, writer, "writer", "home")
        assert (shown.text, shown.bytes) == ("found it", 8) and shown.at.endswith("Z")


@pytest.mark.parametrize(
    ("segment_name", "text", "error"),
    [
        ("fixed", "x", "append: segment `fixed` is read-only"),
        ("brief", "  ", "append: the text is empty"),
        ("brief", "x" * 101, "append: 101 bytes; a page has 100 at most (segment_page_bytes_max): append parts"),
        ("full", "x", "append: segment `full` is full: 2 pages (segment_pages_max)"),
        ("gone", "x", "append: there is no segment `gone`"),
    ],
)
async def test_what_cannot_be_appended_is_told_and_changes_nothing(
    world: World, segment_name: str, text: str, error: str
) -> None:
    program = world.program("p", 'tools: ["append(fixed, brief, full, gone)", ask]')
    answer = by_turn(
        calls(call("ask", question="?")), calls(call("append", segment=segment_name, text=text)), says("x")
    )
    async with world.open(answer, segment_page_bytes_max=100, segment_pages_max=2) as kernel:
        for name in ("brief", "gone"):
            await kernel.segment_make(name, append_only=True)
        await kernel.segment_make("full", "x" * 200, append_only=True)
        await kernel.segment_make("fixed", "x")
        before = await kernel.segments()
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.segment_remove("gone")
        await kernel.answer(pid, "yes")
        await kernel.wait(pid, 20)
        assert results(world.asked[-1])[-1] == f"error: {error}"
        assert await kernel.segments() == [view for view in before if view.name != "gone"]


async def test_what_was_not_granted_is_no_choice(world: World) -> None:
    answer = by_turn(calls(call("append", segment="other", text="x")), says("x"))
    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", append_only=True)
        await kernel.segment_make("other", append_only=True)
        pid = await kernel.spawn(world.program("writer", WRITES))
        await kernel.wait(pid, 20)
        assert "the arguments do not fit" in results(world.asked[1])[0]
        [tool] = [tool for tool in world.asked[0].tools if tool.name == "append"]
        assert tool.parameters["properties"]["segment"] == {"enum": ["brief"]}
        assert (await kernel.segment("other")).shown == []


async def test_twenty_append_at_once_and_nobody_is_lost(world: World) -> None:
    each = 5

    def answer(request: Request) -> Reply:
        turn = turn_of(request)
        text = f"{request.process}.{turn}"
        return calls(call("append", segment="brief", text=text)) if turn < each else says("done")

    program = world.program("writer", WRITES)
    async with world.open(answer, slots=20) as kernel:
        await kernel.segment_make("brief", append_only=True)
        pids = [await kernel.spawn(program) for _ in range(20)]
        await asyncio.gather(*[kernel.wait(pid, 60) for pid in pids])
        pages = (await kernel.segment("brief")).shown
        assert sorted(page.text for page in pages) == sorted(f"{pid}.{turn}" for pid in pids for turn in range(each))
        assert [page.number for page in pages] == list(range(20 * each))
        for pid in pids:
            assert [page.text for page in pages if page.process == pid] == [f"{pid}.{turn}" for turn in range(each)]
        for request in world.asked:
            assert shared(request) == [page_of.name for page_of in _messages(pages)][: len(shared(request))]


def _messages(pages: Any) -> list[Message]:
    return [segment.message("brief", each.number, each.text) for each in pages]


# --------------------------------------------------------------------------------------------------- who may


async def test_a_strangers_segment_is_not_there(world: World) -> None:
    program = world.program("reader", "segments: [brief]")
    async with world.open(lambda r: says("done")) as kernel:
        for name, under in (("acme", ""), ("ann", "acme"), ("zoe", "")):
            await kernel.account_add(name, under=under)
        await kernel.segment_make("brief", "secret", account="acme")
        for account in ("acme", "ann"):
            await kernel.wait(await kernel.spawn(program, account=account), 20)
        assert [shared(request) for request in world.asked] == [[page("brief", 0)]] * 2
        for account in ("zoe", "home"):
            with pytest.raises(NotFoundError, match="there is no segment `brief`"):
                await kernel.spawn(program, account=account)
            with pytest.raises(NotFoundError, match="there is no segment `brief`"):
                await kernel.spawn(world.program("p"), account=account, segments=["brief"])
            with pytest.raises(NotFoundError, match="there is no segment `brief`"):
                await kernel.spawn(world.program("w", "tools: [append(brief)]"), account=account)
        assert len(await kernel.ps(every=True)) == 2, "nothing was started"


async def test_a_child_maps_what_its_program_says(world: World) -> None:
    world.program("child", "segments: [brief]", "Read.")
    world.program("lost", "segments: [nothing]", "Read.")
    program = world.program("parent", 'tools: ["spawn(child, lost)", wait]')

    def answer(request: Request) -> Reply:
        if request.messages[0].text == "Read.":
            return says("read")
        turns = [calls(call("spawn", program="lost"), call("spawn", program="child"), call("wait")), says("done")]
        return turns[min(turn_of(request), 1)]

    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", "one")
        pid = await kernel.spawn(program)
        await kernel.wait(pid, 20)
        assert [shared(request) for request in world.asked] == [[], [page("brief", 0)], []]
        assert results(world.asked[-1])[0] == "error: lost: there is no segment `nothing`"
        assert len(await kernel.ps(every=True)) == 2


# --------------------------------------------------------------------------------------------------- exec, fork


async def test_exec_keeps_the_own_ones_and_takes_those_of_the_program(world: World) -> None:
    async with world.open(lambda r: says("yes")) as kernel:
        for name in ("a", "b", "own"):
            await kernel.segment_make(name, "0", append_only=True)
        first, second = world.program("first", "segments: [a]"), world.program("second", "segments: [b]")
        pid = await kernel.spawn(first, conversation=True, segments=["own"])

        async def say() -> list[str]:
            await kernel.send(pid, "hello")
            before = len(world.asked)
            await world.until_state(kernel, pid, "WAITING", "message")
            assert len(world.asked) > before or world.asked
            return shared(world.asked[-1])

        assert await say() == [page("a", 0), page("own", 0)]
        await kernel.exec(pid, second)
        for name in ("a", "b", "own"):
            await kernel.segment_append(name, "1")
        assert await say() == [page("a", 0), page("own", 0), page("own", 1), page("b", 0), page("b", 1)]
        await kernel.exec(pid, first)
        assert (await say())[5:] == [page("a", 1)], "what was read before is not read twice"


async def test_a_fork_goes_on_where_its_source_was(world: World) -> None:
    program = world.program("p", "segments: [brief]")
    async with world.open(lambda r: says("yes")) as kernel:
        await kernel.segment_make("brief", "0", append_only=True)
        pid = await kernel.spawn(program, conversation=True)
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "WAITING", "message")
        fork = await kernel.fork(pid)
        await kernel.segment_append("brief", "1")
        for each in (fork, pid):
            await kernel.send(each, "again")
            await until_asked(world, each, 2 if each == pid else 1)
            assert shared(world.asked[-1]) == [page("brief", 0), page("brief", 1)]
            await world.until_state(kernel, each, "WAITING", "message")


async def test_a_fork_of_one_that_was_refused_its_call_has_no_gap(world: World) -> None:
    """The pages joined before a call that no limit let through; the fork begins before them and reads them itself."""
    program = world.program("p", "segments: [brief]\nmax_tokens: 50")
    async with world.open(lambda r: says("done")) as kernel:
        await kernel.segment_make("brief", "0", append_only=True)
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [mains.kernel.billing.Budget("tokens", "total", 30)])
        pid = await kernel.spawn(program, account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker")
        assert kernel.journal.processes("process_all")[0].segments[0].until == 1, "it has joined, and nobody was asked"
        await kernel.signal(pid, mains.kernel.ports.Signal.KILL)
        fork = await kernel.fork(pid)
        await kernel.topup("ann", tokens=10_000)
        await kernel.wait(fork, 20)
        assert shared(world.asked[-1]) == [page("brief", 0)]


# --------------------------------------------------------------------------------------------------- removal


async def test_a_segment_that_a_live_process_maps_is_not_removed(world: World) -> None:
    program = world.program("reader", READS)
    async with world.open(by_turn(calls(call("ask", question="?")), says("done"))) as kernel:
        await kernel.segment_make("brief", "a text that nobody else has")
        pid = await kernel.spawn(program)
        await world.until_state(kernel, pid, "WAITING", "human")
        with pytest.raises(UsageError, match=f"segment brief is mapped by process {pid}"):
            await kernel.segment_remove("brief")
        assert (await kernel.segment("brief")).mapped_by == [pid]
        await kernel.answer(pid, "yes")
        await kernel.wait(pid, 20)
        assert (await kernel.segment_remove("brief")).erased
        assert await kernel.segments() == []
        assert await count(kernel, "event_of_segments") == 0, "its events went with it"
        assert "nobody else has" in (await kernel.show(pid))["messages"][2]["text"], "who read it keeps it"
        fork = await kernel.fork(pid)
        await kernel.wait(fork, 20)
        assert shared(world.asked[-1]) == [page("brief", 0)]
        assert retention.orphaned(kernel.journal) == []
        await kernel.remove([fork, pid])
        assert retention.orphaned(kernel.journal) == []
        again = await kernel.segment_make("brief", "another")
        assert again.pages == 1
    for file in (world.folder / "home").glob("mains.db*"):
        assert b"nobody else has" not in file.read_bytes() or file.suffix == ".db-wal"


async def test_pages_of_a_segment_outlive_who_appended_them(world: World) -> None:
    answer = by_turn(calls(call("append", segment="brief", text="kept")), says("done"))
    async with world.open(answer) as kernel:
        await kernel.segment_make("brief", append_only=True)
        pid = await kernel.spawn(world.program("writer", WRITES))
        await kernel.wait(pid, 20)
        await kernel.remove([pid])
        [shown] = (await kernel.segment("brief")).shown
        assert (shown.text, shown.process, shown.program) == ("kept", pid, "writer")
        assert retention.orphaned(kernel.journal) == []


async def test_what_is_the_same_in_two_segments_of_one_name_stays_for_the_second(world: World) -> None:
    async with world.open(lambda r: says("done")) as kernel:
        await kernel.segment_make("brief", "the same")
        await kernel.segment_remove("brief")
        await kernel.segment_make("brief", "the same")
        assert [each.text for each in (await kernel.segment("brief")).shown] == ["the same"]
        assert retention.orphaned(kernel.journal) == []


# --------------------------------------------------------------------------------------------------- the person


async def test_a_segment_is_made_with_care(world: World) -> None:
    async with world.open(lambda r: says("done"), segments_max=2, segment_pages_max=3) as kernel:
        with pytest.raises(UsageError, match="is no name for a segment"):
            await kernel.segment_make("Brief", "x")
        with pytest.raises(UsageError, match="would be empty for ever"):
            await kernel.segment_make("brief")
        with pytest.raises(NotFoundError, match="there is no account `zoe`"):
            await kernel.segment_make("brief", "x", account="zoe")
        with pytest.raises(UsageError, match="no Unicode text"):
            await kernel.segment_make("brief", "\ud800")
        with pytest.raises(LimitError, match="would have 4 pages, of 3 at most"):
            await kernel.segment_make("brief", "x" * 8_192 * 3 + "y")
        assert await kernel.segments() == [], "nothing of it was kept"
        await kernel.segment_make("brief", "x")
        with pytest.raises(UsageError, match="there is a segment `brief` already"):
            await kernel.segment_make("brief", "x")
        with pytest.raises(UsageError, match="segment brief is read-only"):
            await kernel.segment_append("brief", "y")
        await kernel.segment_make("log", append_only=True)
        with pytest.raises(UsageError, match="nothing to append"):
            await kernel.segment_append("log", "")
        with pytest.raises(LimitError, match="2 segments already"):
            await kernel.segment_make("more", "x")
        with pytest.raises(NotFoundError, match="segment brief has no page 1: it has 1"):
            await kernel.segment("brief", 1)


async def test_tables_that_do_not_agree_with_the_events_are_told(world: World) -> None:
    async with world.open(lambda r: says("done")) as kernel:
        await kernel.segment_make("brief", "one\n" * 4_000)
        await kernel.segment_make("log", "two", append_only=True)
        assert segments.verify(kernel.journal) == []
        home = world.folder / "home"
    import sqlite3

    damage = {
        "UPDATE segment SET pages = pages + 1 WHERE name = 'log'": "segment: the table is not what the events made",
        "DELETE FROM segment_page WHERE number = 1": "segment_page: the table is not what the events made",
    }
    for sql, fault in damage.items():
        with sqlite3.connect(home / "mains.db") as database:
            database.execute("SAVEPOINT before")
            before = list(database.iterdump())
            database.execute(sql)
        async with mains.open(home, engines=[mains.testing.ScriptedEngine.of(lambda r: says("x"))]) as kernel:
            assert fault in audit.verify(kernel.journal)
        assert before
