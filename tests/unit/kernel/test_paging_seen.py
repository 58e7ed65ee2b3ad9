"""What a person sees of evictions that the kernel makes: frames that were shown, the table, the log, the transcript."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.test_paging import FRONT, is_summary, look, worker
from tests.unit.kernel.world import World, says

import mains
from mains.daemon import diary
from mains.daemon.transcript import transcript
from mains.kernel import audit, pages, past, views
from mains.kernel.cover import chain
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Reply, Request

TURNS = 40


async def worked(world: World, kernel: Desk) -> int:
    pid = await kernel.spawn(world.program("p", FRONT, "Read reports. Never say banana."))
    assert (await kernel.wait(pid, 60)).result == "done"
    return pid


async def test_every_frame_is_made_again_byte_for_byte_summaries_too(world: World) -> None:
    async with world.open(worker(TURNS), devices=[mains.device(look)]) as kernel:
        pid = await worked(world, kernel)
        asked = [notice.seq for notice in await kernel.history(pid) if notice.kind == "asked"]
        assert len(asked) == len(world.asked)
        for seq, request in zip(asked, world.asked, strict=True):
            seen = await kernel.seen(pid, seq)
            assert tuple(msgspec.json.decode(each, type=Message) for each in seen.messages) == request.messages
            assert [tool["name"] for tool in msgspec.json.decode(seen.tools)] == [tool.name for tool in request.tools]
            assert seen.agree
            assert seen.summary == is_summary(request)
            assert [bool(place.page) for place in seen.places] == [True] * (len(seen.places) - 1) + [not seen.summary]
        assert any(map(is_summary, world.asked))


async def test_the_table_shows_in_order_what_stands_in_the_frame(world: World) -> None:
    async with world.open(worker(TURNS), devices=[mains.device(look)]) as kernel:
        pid = await worked(world, kernel)
        table, p = await kernel.mem(pid), views.present(kernel.journal, pid)
        frame = [place.page for place in pages.frame(kernel.journal.rows, p)]
        assert [each.page for each in table.pages if each.where != "evicted"] == frame
        assert [each.position for each in table.pages if each.handle] == list(range(p.length - p.opening))
        assert table.frame_tokens == sum(each.tokens for each in table.pages if each.where != "evicted")
        assert table.frame_tokens <= table.window_tokens < 4_000
        assert table.low_tokens < table.high_tokens <= table.window_tokens
        ordinary = [request for request in world.asked if not is_summary(request)]
        stable = sum(
            after.messages[: len(before.messages)] == before.messages and after.tools == before.tools
            for before, after in pairwise(ordinary)
        )
        assert (table.calls, table.stable) == (len(ordinary), stable)
        assert 0 < table.stable < table.calls - 1
        assert table.evictions + table.parts == p.covers
        assert table.parts > table.evictions > 1
        assert {"summary", "stub", "result", "reply"} <= {each.kind for each in table.pages}


@pytest.mark.parametrize("step", [7])
async def test_forks_from_the_midst_of_evictions_have_the_frame_of_then(world: World, step: int) -> None:
    answer: Any = worker(TURNS)
    async with world.open(lambda request: answer(request), devices=[mains.device(look)]) as kernel:
        pid = await worked(world, kernel)
        answer = _says_done
        made = list(past.frames(kernel.journal, pid))
        for each in made[::step]:
            if each.past.process.asking and each.past.process.asking.summary:
                continue
            fork = await kernel.fork(pid, each.past.seq)
            born = past.past(kernel.journal, fork, (await kernel.history(fork))[0].seq)
            assert born.frame_hash() == born.process.frame == each.journalled
            assert (await kernel.wait(fork, 10)).result == "done"
        for notice in (await kernel.history(pid))[::step]:
            fork = await kernel.fork(pid, notice.seq)
            assert (await kernel.wait(fork, 10)).result == "done", notice


def _says_done(request: Request) -> Reply:
    return says("done")


async def test_the_log_and_the_transcript_tell_of_evictions(world: World) -> None:
    async with world.open(worker(TURNS), devices=[mains.device(look)]) as kernel:
        pid = await worked(world, kernel)
        lines = [entry.line for entry in diary.entries(kernel.journal, pid, 0, 10_000)]
        assert any(line.startswith("shows in part 1 page, mem:") for line in lines)
        assert any(line.startswith("asks scripted for a summary of mem:0-") for line in lines)
        assert any("summed up with 10 tokens in, 5 out" in line for line in lines)
        first = (await kernel.history(pid))[0].seq
        parts = [part async for some in transcript(kernel.journal, kernel.watch(pid), pid, first, 0) for part in some]
        notes = [part.text for part in parts if part.kind == "note"]
        assert any(note.startswith("evicted ") for note in notes)
        assert not any(part.kind == "said" and "reports were read" in part.text for part in parts)


async def test_the_audit_hashes_a_page_once_as_long_as_nothing_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that are shown in part from the start leave no frame that a model saw."""
    hashed = 0

    def counted(frame: str, names: Iterable[str]) -> str:
        nonlocal hashed
        hashed += len(names := [*names])
        return chain(frame, names)

    async with world.open(worker(TURNS), devices=[mains.device(look)], view_tokens_max=200) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [look]\nframe_tokens: 100k"))
        assert (await kernel.wait(pid, 60)).result == "done"
        p = views.present(kernel.journal, pid)
        assert p.covers >= TURNS
        monkeypatch.setattr(past, "chain", counted)
        assert audit.verify(kernel.journal) == []
        assert p.length <= hashed < 3 * p.length


async def test_the_audit_names_each_call_whose_frame_was_another(world: World) -> None:
    """A cover names another page than it did: every frame in which it stood is another, and no other frame is."""
    async with world.open(worker(TURNS), devices=[mains.device(look)]) as kernel:
        pid = await worked(world, kernel)
        covers = past.past(kernel.journal, pid, 2**62).covers
        with contextlib.closing(sqlite3.connect(world.folder / "home" / "mains.db", isolation_level=None)) as database:
            for cover in covers:
                [[body]] = database.execute("SELECT body FROM event WHERE seq = ?", (cover.seq,))
                spoiled = body.replace(cover.pages[-1].encode(), covers[0].pages[0][::-1].encode())
                database.execute("UPDATE event SET body = ? WHERE seq = ?", (spoiled, cover.seq))
                wrong = [e.past.seq for e in past.frames(kernel.journal, pid) if e.past.frame_hash() != e.journalled]
                told = [f"event {seq}: process {pid}: the frame made anew has another hash" for seq in wrong]
                assert wrong and wrong[0] > cover.seq
                assert [fault for fault in audit.verify(kernel.journal) if "another hash" in fault] == told
                database.execute("UPDATE event SET body = ? WHERE seq = ?", (body, cover.seq))
