"""A fork from any event of a life begins with the frame that there was, and goes on from it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.evictions import evict
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import UsageError
from mains.kernel import past
from mains.kernel.cover import chain, seed
from mains.kernel.desk import Desk
from mains.kernel.past import Past
from mains.kernel.ports import Message, Reply, Request, Signal
from mains.kernel.process import Process


def answer(request: Request) -> Reply:
    """`look N` calls a tool so many times in one turn; all else is said again."""
    last = request.messages[-1]
    if last.role == "user" and last.text.startswith("look"):
        return calls(*[call("receive", timeout_s=0)] * int(last.text.split()[1]))
    return says(f"you said {last.text[:20]}")


STEPS = st.lists(st.sampled_from(["hello", "look 1", "look 3", "sum"]), min_size=1, max_size=5)


async def live(world: World, kernel: Desk, steps: list[str]) -> int:
    """A conversation with these steps, that was ended."""
    pid = await kernel.spawn(world.program("talker", "tools: [receive]"), conversation=True)
    for at, step in enumerate(steps):
        grown = (await kernel.mem(pid)).pages[-1].position + 1
        if step == "sum" and grown >= 2:
            summary = Message(role="user", text=f"sum {at}", kind="summary")
            await evict(kernel, pid, f"after {at}", (0, grown, (summary,)))
        else:
            await kernel.send(pid, step)
        await world.until_state(kernel, pid, "WAITING", "message")
    await kernel.signal(pid, Signal.TERM)
    return pid


def expected(kernel: Desk, pid: int, seq: int, then: Past) -> str:
    """The hash of the frame that a fork from this event must have: that of then, or of the whole turn before."""
    of = then.process
    open_turn = of.asking is not None or of.calls or (of.exit_code is not None and not of.idle)
    if not open_turn:
        return then.frame_hash()
    asked = [each.past for each in past.frames(kernel.journal, pid) if each.past.seq <= seq]
    names = [page for _, page in asked[-1].frame()]
    return chain(seed(of.program, of.tools), names)


async def runs_on(world: World, kernel: Desk, fork: int) -> None:
    """It goes on by itself where its turn was open, and else with what it is told."""
    await world.until_state(kernel, fork, "WAITING", "message")
    before, began = len(world.asked), kernel.journal.process(fork)
    await kernel.send(fork, "and now")
    await world.until_state(kernel, fork, "WAITING", "message")
    assert isinstance(began, Process)
    assert len(world.asked) == before + 1
    assert world.asked[-1].messages[-1].text == "and now"


async def every_fork(steps: list[str], folder: Path) -> None:
    world = World(folder)
    async with world.open(answer) as kernel:  # at its end every frame of every process is made again
        pid = await live(world, kernel, steps)
        for notice in await kernel.history(pid):
            then = past.past(kernel.journal, pid, notice.seq)
            if notice.kind == "replied" and not then.process.calls:
                then = past.past(kernel.journal, pid, notice.seq + 1)  # the end of its turn, in the same step
            fork = await kernel.fork(pid, notice.seq)
            first = past.past(kernel.journal, fork, (await kernel.history(fork))[0].seq)
            wanted = expected(kernel, pid, then.seq, then)
            assert first.process.frame == wanted == first.frame_hash(), notice
            await runs_on(world, kernel, fork)
            calls_made = list(past.frames(kernel.journal, fork))
            assert all(each.journalled == each.past.frame_hash() for each in calls_made)
            begun = [page for _, page in first.frame()]
            assert [page for _, page in calls_made[0].past.frame()][: len(begun)] == begun


@settings(max_examples=5, deadline=None)
@given(STEPS)
def test_a_fork_from_any_event_has_the_frame_of_then_and_goes_on(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(every_fork(steps, Path(folder)))


async def test_a_fork_of_a_finished_process_makes_its_last_turn_again(world: World) -> None:
    replies = calls(call("receive", timeout_s=0)), says("done")
    async with world.open(by_turn(*replies)) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive]"))
        await kernel.wait(pid, 10)
        events = await kernel.history(pid)
        for notice, asked in [(events[-1], 1), (events[-2], 1), (events[0], 2)]:
            before = len(world.asked)
            fork = await kernel.fork(pid, notice.seq)
            assert (await kernel.wait(fork, 10)).result == "done"
            assert len(world.asked) - before == asked, notice.kind
        assert [each.kind for each in events][-2:] == ["replied", "exited"]


async def test_a_fork_from_the_middle_of_a_turn_begins_with_the_whole_turn_before(world: World) -> None:
    replies = calls(call("receive", timeout_s=0)), calls(call("ask", question="?")), says("done")
    async with world.open(by_turn(*replies)) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive, ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        middle = (await kernel.history(pid))[-1].seq
        await kernel.answer(pid, "yes")
        await kernel.wait(pid, 10)
        before = len(world.asked)
        fork = await kernel.fork(pid, middle)
        await world.until_state(kernel, fork, "WAITING", "human")
        assert len(world.asked) == before + 1
        assert world.asked[-1].messages == world.asked[1].messages
        await kernel.answer(fork, "no")
        assert (await kernel.wait(fork, 10)).result == "done"


async def test_a_fork_of_a_schedule_is_refused_at_any_event(world: World) -> None:
    async with world.open(by_turn(says("done"))) as kernel:
        pid = await kernel.spawn(world.program("p", "schedule: 0 7 * * *"))
        with pytest.raises(UsageError, match="is a schedule"):
            await kernel.fork(pid, (await kernel.history(pid))[0].seq)
