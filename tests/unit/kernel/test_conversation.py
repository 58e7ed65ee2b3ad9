"""Conversations: an answer does not end them, INT ends a turn, and a call is never without its result."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, call, calls, says

import mains
from mains.errors import EngineError, Spent, UsageError
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Reply, Request, Signal


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def echo(request: Request) -> Reply:
    """Say the last message again."""
    return says(f"you said {request.messages[-1].text}")


def spoken(request: Request) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in request.messages]


async def at_rest(world: World, kernel: Desk, pid: int, reason: str = "message") -> None:
    await world.until_state(kernel, pid, "WAITING", reason)


async def test_it_waits_for_the_first_message_and_answers_each(world: World) -> None:
    async with world.open(echo) as kernel:
        pid = await kernel.spawn(world.program("talker", prose="Be kind."), conversation=True)
        assert (await kernel.outcome(pid)).state == "WAITING"
        assert world.asked == []
        for text in ("one", "two"):
            await kernel.send(pid, text)
            await at_rest(world, kernel, pid)
        assert spoken(world.asked[-1]) == [
            ("system", "Be kind."), ("user", "one"), ("assistant", "you said one"), ("user", "two"),
        ]  # fmt: skip
        assert await kernel.signal(pid, Signal.TERM) == [pid]
        assert (await kernel.wait(pid, 10)).exit_code == 143


async def test_a_prompt_begins_it_and_a_boot_does_not_disturb_it(world: World) -> None:
    async with world.open(echo) as kernel:
        pid = await kernel.spawn(world.program("talker"), {"prompt": "hello"}, conversation=True)
        await at_rest(world, kernel, pid)
    async with world.open(echo) as kernel:
        assert (await kernel.outcome(pid)).reason == "message"
        await kernel.send(pid, "more")
        await at_rest(world, kernel, pid)
        assert world.asked[-1].messages[1].text == "hello"
        assert len(world.asked) == 2


async def test_exit_ends_it(world: World) -> None:
    async with world.open(lambda _: calls(call("exit", result="bye"))) as kernel:
        pid = await kernel.spawn(world.program("talker", "tools: exit"), {"prompt": "go"}, conversation=True)
        assert (await kernel.wait(pid, 10)).result == "bye"


async def test_what_goes_wrong_ends_the_turn_and_not_the_conversation(world: World) -> None:
    def broken(request: Request) -> Reply:
        if request.messages[-1].text == "break":
            raise EngineError("engine test: it is closed today", retryable=False, spent=Spent.NOTHING)
        return calls(call("nothing")) if request.messages[-1].text != "fine" else says("fine")

    async with world.open(broken, mends_max=1, turns_max=5) as kernel:
        pid = await kernel.spawn(world.program("talker", "tools: sleep"), conversation=True)
        for text, why in (("break", "closed today"), ("mend", "did not mend"), ("fine", "")):
            await kernel.send(pid, text)
            await at_rest(world, kernel, pid, f"message: engine test: it is {why}" if text == "break" else "message")
            assert why in (await kernel.outcome(pid)).reason


async def test_the_turn_limit_counts_from_the_last_message(world: World) -> None:
    async with world.open(echo, turns_max=2) as kernel:
        pid = await kernel.spawn(world.program("talker"), conversation=True)
        for text in "abcd":
            await kernel.send(pid, text)
            await at_rest(world, kernel, pid)
        assert (await kernel.outcome(pid)).turns == 4


class Gate:
    """Holds back who asks, until told."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cut = False

    async def wait(self) -> None:
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cut = True
            raise


async def test_int_cuts_a_model_call(world: World) -> None:
    gate = Gate()

    async def answer(request: Request) -> Reply:
        if request.messages[-1].text == "slow":
            await gate.wait()
        return echo(request)

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("talker"), conversation=True)
        await kernel.send(pid, "slow")
        await gate.entered.wait()
        assert await kernel.signal(pid, Signal.INT) == [pid]
        await at_rest(world, kernel, pid, "message: interrupted")
        assert gate.cut
        assert await kernel.signal(pid, Signal.INT) == []
        await kernel.send(pid, "quick")
        await at_rest(world, kernel, pid)
        assert [text for _, text in spoken(world.asked[-1])[1:]] == ["slow", "quick"]


async def test_int_lets_a_device_call_end_and_makes_no_other(world: World) -> None:
    gate, made = Gate(), []

    @mains.device
    async def press(button: str) -> str:
        """Press a button."""
        made.append(button)
        await gate.wait()
        return f"pressed {button}"

    def answer(request: Request) -> Reply:
        if request.messages[-1].text != "press":
            return echo(request)
        return calls(call("press", button="a"), call("press", button="b"), call("ask", question="why?"))

    async with world.open(answer, devices=[press]) as kernel:
        pid = await kernel.spawn(world.program("talker", "tools: press, ask"), conversation=True)
        await kernel.send(pid, "press")
        await gate.entered.wait()
        await kernel.signal(pid, Signal.INT)
        assert (await kernel.outcome(pid)).reason == "interrupted"
        gate.open.set()
        await at_rest(world, kernel, pid)
        await kernel.send(pid, "next")
        await at_rest(world, kernel, pid, "message")
        assert made == ["a"]
        results = [m for m in world.asked[-1].messages if m.role == "tool"]
        assert [m.text.split(":")[0] for m in results] == ["pressed a", "interrupted", "interrupted"]
        _whole(world.asked[-1].messages)


async def test_int_while_it_waits_for_time_a_child_or_a_person(world: World) -> None:
    def answer(request: Request) -> Reply:
        match request.messages[-1].text:
            case "sleep":
                return calls(call("sleep", seconds=3_600))
            case "ask":
                return calls(call("ask", question="well?"))
        return echo(request)

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("talker", "tools: sleep, ask"), conversation=True)
        for text, reason in (("sleep", "timer"), ("ask", "human")):
            await kernel.send(pid, text)
            await world.until_state(kernel, pid, "WAITING", reason)
            await kernel.signal(pid, Signal.INT)
            await at_rest(world, kernel, pid)
        world.clock.advance(4_000_000)  # the timer of the call that is over wakes nobody
        await kernel.send(pid, "end")
        await at_rest(world, kernel, pid)
        _whole(world.asked[-1].messages)


async def test_int_is_for_conversations(world: World) -> None:
    async with world.open(lambda _: calls(call("sleep", seconds=9))) as kernel:
        pid = await kernel.spawn(world.program("sleeper", "tools: sleep"))
        with pytest.raises(UsageError, match=f"process {pid} is no conversation"):
            await kernel.signal(pid, Signal.INT)


async def test_a_fork_of_one_at_rest_rests_too(world: World) -> None:
    async with world.open(echo) as kernel:
        pid = await kernel.spawn(world.program("talker"), {"prompt": "a"}, conversation=True)
        await at_rest(world, kernel, pid)
        twin = await kernel.fork(pid)
        assert (await kernel.outcome(twin)).reason == "message"
        await kernel.send(twin, "b")
        await at_rest(world, kernel, twin)
        assert [text for _, text in spoken(world.asked[-1])[1:]] == ["a", "you said a", "b"]
        assert len((await kernel.show(pid))["messages"]) == 3


def _whole(messages: tuple[Message, ...]) -> None:
    """Each call is followed by its result before anybody else speaks."""
    for at, message in enumerate(messages):
        results = [m.call_id for m in messages[at + 1 : at + 1 + len(message.calls)] if m.role == "tool"]
        assert results == [c.id for c in message.calls]
