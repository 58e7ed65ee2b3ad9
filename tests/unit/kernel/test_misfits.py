"""Frames that cannot fit: no call is made, the error names what is too large, nothing is lost, and nobody spins."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.kernel.exactness import faults
from tests.unit.kernel.world import World, says, turn_of

import mains
from mains.errors import EngineError, Spent
from mains.kernel import orders, pages
from mains.kernel.desk import Desk
from mains.kernel.event import Sent
from mains.kernel.ports import Message, Reply, Signal
from mains.kernel.tx import Tx
from mains.testing import ScriptedEngine

SMALL = "frame_tokens: 1000\nmax_tokens: 100"
LARGE = "long prose without end. " * 400  # 3,200 tokens


async def at_rest(kernel: Desk) -> None:
    """Nothing happens any more, however often the loop turns."""
    before = kernel.journal.rows("event_last")
    for _ in range(200):
        await asyncio.sleep(0)
    assert kernel.journal.rows("event_last") == before


def detail(kernel: Desk, pid: int) -> str:
    p = kernel.journal.process(pid)
    assert p is not None
    return p.detail


async def stopped(world: World, kernel: Desk, pid: int, *words: str) -> None:
    """It stands with an error that says so, has made no call, and stays so when it is told to go on."""
    for _ in range(2):
        await world.until_state(kernel, pid, "STOPPED", "error")
        why = (await kernel.outcome(pid)).reason
        assert "its frame cannot fit" in why and all(word in why for word in words), why
        await at_rest(kernel)
        assert world.asked == []
        await kernel.signal(pid, Signal.CONT)


async def rule(kernel: Desk, pid: int, text: str) -> None:
    """State a rule."""

    def op(tx: Tx) -> None:
        page = pages.put_message(tx, Message("user", text, kind="rule", name="x"))
        number = tx.run("message_insert", pid, "x", page, "").lastrowid
        tx.happen(orders.present(tx, pid), Sent(message=number or 0, page=page, sender="x"))

    await kernel._kernel.order(op, "send")


async def test_a_program_larger_than_the_frame(world: World) -> None:
    async with world.open(lambda _: says("done")) as kernel:
        pid = await kernel.spawn(world.program("p", SMALL, LARGE))
        await stopped(world, kernel, pid, "program (the opening) 3,", "900 fit")
        assert await kernel.exec(pid, world.program("q", SMALL, "Do it."))
        assert (await kernel.wait(pid, 20)).result == "done"


async def test_a_tool_list_larger_than_the_frame(world: World) -> None:
    def large() -> str:
        return ""

    large.__doc__ = LARGE
    async with world.open(lambda _: says("done"), devices=[mains.device(large)]) as kernel:
        pid = await kernel.spawn(world.program("p", f"{SMALL}\ntools: [large]"))
        await stopped(world, kernel, pid, "0 fit, beside 3,", "for tools")


async def test_rules_larger_than_the_frame(world: World) -> None:
    async with world.open(lambda _: says("done")) as kernel:
        pid = await kernel.spawn(world.program("p", SMALL), paused=True)
        for n in range(4):
            await rule(kernel, pid, f"{n}: {LARGE[:1_000]}")
        await kernel.signal(pid, Signal.CONT)
        await world.until_state(kernel, pid, "STOPPED", "error")
        assert "rule (mem:" in (await kernel.outcome(pid)).reason
        await at_rest(kernel)
        asked = len(world.asked)
        assert await kernel.exec(pid, world.program("q", "", "Do it."))
        assert (await kernel.wait(pid, 20)).result == "done"
        shown = [message.text for message in world.asked[-1].messages if message.kind == "rule"]
        assert shown == [f"{n}: {LARGE[:1_000]}" for n in range(4)] and len(world.asked) > asked


async def test_a_huge_message_is_shown_in_part(world: World) -> None:
    async with world.open(lambda _: says("done")) as kernel:
        pid = await kernel.spawn(world.program("p", SMALL), paused=True)
        await kernel.send(pid, LARGE)
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 20)).result == "done"
        assert world.asked[0].messages[-1].text.startswith("[message: 9,600 characters")
        assert faults(kernel.journal, mains.Settings(), world.asked) == []


async def test_a_conversation_whose_reply_is_too_large_rests_and_goes_on_with_another_program(world: World) -> None:
    async with world.open(lambda request: says(LARGE if turn_of(request) == 0 else "short")) as kernel:
        pid = await kernel.spawn(world.program("p", SMALL), {"prompt": "hello"}, conversation=True)
        await world.until_state(kernel, pid, "WAITING", "message")
        for _ in range(2):
            await kernel.send(pid, "and now?")
            await world.until_state(kernel, pid, "WAITING", "message")
            assert "reply (mem:0) 3," in detail(kernel, pid)
            await at_rest(kernel)
        assert len(world.asked) == 1
        assert await kernel.exec(pid, world.program("q", "", "Do it."))
        await kernel.send(pid, "at last?")
        await world.until(lambda: _answered(kernel, pid, 2))
        told = [message.text for message in world.asked[-1].messages]
        assert told[-3:] == ["and now?", "and now?", "at last?"] and LARGE.strip() in told[-4]
        assert faults(kernel.journal, mains.Settings(), world.asked) == []


async def _answered(kernel: Desk, pid: int, turns: int) -> bool:
    return (await kernel.outcome(pid)).turns == turns


async def test_what_does_not_fit_here_goes_to_an_engine_with_more_room(world: World) -> None:
    def small(_: object) -> Reply:
        raise AssertionError("nothing of this fits")

    tiny = ScriptedEngine.of(small, name="tiny", context_tokens=2_000)
    async with world.open(lambda _: says("done"), others=[tiny]) as kernel:
        pid = await kernel.spawn(world.program("p", "model: [tiny, scripted]\nmax_tokens: 100", LARGE))
        assert (await kernel.wait(pid, 20)).result == "done"


async def test_an_engine_that_takes_over_with_less_room_is_not_asked(world: World) -> None:
    def down(_: object) -> Reply:
        raise EngineError("it is down", retryable=False, spent=Spent.NOTHING)

    def small(_: object) -> Reply:
        raise AssertionError("nothing of this fits")

    tiny = ScriptedEngine.of(small, name="tiny", context_tokens=2_000)
    async with world.open(down, others=[tiny]) as kernel:
        pid = await kernel.spawn(world.program("p", "model: [scripted, tiny]\nmax_tokens: 100", LARGE))
        await world.until_state(kernel, pid, "STOPPED", "error")
        why = (await kernel.outcome(pid)).reason
        assert "it is down" in why and "1,900 fit" in why and "program (the opening) 3," in why
        await at_rest(kernel)


@pytest.mark.parametrize("conversation", [False, True])
async def test_a_larger_program_that_does_not_fit_stops_and_the_next_one_goes_on(
    world: World, conversation: bool
) -> None:
    async with world.open(lambda _: says("done")) as kernel:
        pid = await kernel.spawn(world.program("p", SMALL), conversation=conversation, paused=True)
        await kernel.exec(pid, world.program("q", SMALL, LARGE))
        await kernel.send(pid, "go")
        await kernel.signal(pid, Signal.CONT)
        await world.until_state(kernel, pid, *(("WAITING", "message") if conversation else ("STOPPED", "error")))
        assert "program (the opening) 3," in detail(kernel, pid) and not world.asked
        await at_rest(kernel)
        await kernel.exec(pid, world.program("r", SMALL))
        if conversation:
            await kernel.send(pid, "go on")
        await world.until(lambda: _answered(kernel, pid, 1))
        assert "go" in [message.text for message in world.asked[0].messages]
