"""Signals, forks, keys, and what a boot finds."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains import Signal
from mains.errors import HomeLockedError, NotFoundError, UsageError
from mains.kernel.ports import Reply, Request


async def _never(request: Request) -> Reply:
    await asyncio.Event().wait()
    raise AssertionError


async def test_stop_takes_hold_after_the_call_in_flight_and_cont_goes_on(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        await asyncio.wait_for(gate.wait(), 10)
        return (calls(call("receive", timeout_s=0)), says("done"))[turn_of(request)]

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive]"))
        await world.until_state(kernel, pid, "RUNNING")
        assert await kernel.signal(pid, Signal.STOP) == [pid]
        await world.until_state(kernel, pid, "RUNNING", "pausing")
        gate.set()
        await world.until_state(kernel, pid, "STOPPED", "paused")
        assert (await kernel.outcome(pid)).turns == 1
        assert await kernel.signal(pid, Signal.STOP) == []
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 10)).result == "done"


async def test_a_paused_process_still_gets_what_it_waits_for(world: World) -> None:
    async with world.open(by_turn(calls(call("ask", question="?")), says("done"))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        await kernel.signal(pid, Signal.STOP)
        await kernel.answer(pid, "yes")
        assert (await kernel.outcome(pid)).state == "STOPPED"
        await kernel.signal(pid, Signal.CONT)
        assert (await kernel.wait(pid, 10)).result == "done"


async def test_term_interrupts_a_model_call_and_charges_its_hold(world: World) -> None:
    async with world.open(_never) as kernel:
        pid = await kernel.spawn(world.program("p", "max_tokens: 100"))
        await world.until_state(kernel, pid, "RUNNING")
        await kernel.signal(pid, Signal.TERM)
        outcome = await kernel.wait(pid, 10)
    assert (outcome.exit_code, outcome.reason) == (143, "terminated")
    assert outcome.usage.total > 100


async def test_term_lets_a_device_call_end_and_becomes_kill_after_the_grace(world: World) -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    @mains.device
    async def slow() -> str:
        """Slow."""
        entered.set()
        await gate.wait()
        return "done"

    async with world.open(by_turn(calls(call("slow"))), devices=[slow], term_grace_s=10) as kernel:
        path = world.program("p", "tools: [slow]")
        first = await kernel.spawn(path)
        await asyncio.wait_for(entered.wait(), 10)
        await kernel.signal(first, Signal.TERM)
        gate.set()
        assert (await kernel.wait(first, 10)).exit_code == 143
        gate.clear()
        entered.clear()
        second = await kernel.spawn(path)
        await asyncio.wait_for(entered.wait(), 10)
        await kernel.signal(second, Signal.TERM)
        await world.until_state(kernel, second, "RUNNING", "ending")
        for _ in range(50):
            await asyncio.sleep(0)
        world.clock.advance(11_000)
        outcome = await kernel.wait(second, 10)
    assert outcome.exit_code == 137
    assert "may have happened: slow" in outcome.reason


async def test_kill_ends_the_tree_at_once(world: World) -> None:
    world.program("child", "", "Child.")

    def answer(request: Request) -> Reply | object:
        if request.messages[0].text == "Child.":
            return _never(request)
        return (calls(call("spawn", program="child"), call("spawn", program="child")), calls(call("wait")))[
            turn_of(request)
        ]

    async with world.open(answer) as kernel:  # type: ignore[arg-type]
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"))
        await world.until_state(kernel, pid, "WAITING", "child")
        await world.until_state(kernel, 3, "RUNNING")
        assert await kernel.signal(pid, Signal.KILL) == [1, 2, 3]
        assert {(await kernel.wait(each, 10)).exit_code for each in (1, 2, 3)} == {137}
        assert await kernel.ps() == []
        with pytest.raises(UsageError, match="has exited"):
            await kernel.signal(pid, Signal.KILL)
        with pytest.raises(NotFoundError, match="no process 99"):
            await kernel.signal(99, Signal.TERM)


async def test_a_fork_shares_what_was_said_and_makes_only_the_open_turn_again(world: World) -> None:
    replies = calls(call("receive", timeout_s=0)), calls(call("ask", question="?")), says("done")
    async with world.open(by_turn(*replies)) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [receive, ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        before = (await kernel.show(pid))["context"]
        fork = await kernel.fork(pid)
        await world.until_state(kernel, fork, "WAITING", "human")
        shown = await kernel.show(fork)
        assert shown["context"] == before[: len(shown["context"])]
        assert len(world.asked) == 3, "the first turn was not made again"
        assert (await kernel.show(pid))["context"] == before
        await kernel.answer(fork, "no")
        assert (await kernel.wait(fork, 10)).result == "done"
        assert (await kernel.show(pid))["context"] == before
        again = await kernel.wait(await kernel.fork(fork), 10)
        assert again.result == "done"
        assert (await kernel.outcome(pid)).state == "WAITING"


async def test_a_key_names_one_process(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        path = world.program("p", "inputs: {n: number}")
        pids = await asyncio.gather(*[kernel.spawn(path, {"n": "1"}, key="k") for _ in range(5)])
        assert set(pids) == {1}
        with pytest.raises(UsageError, match="belongs to process 1"):
            await kernel.spawn(path, {"n": "2"}, key="k")
        world.program("p", "inputs: {n: number}", "Something else.")
        with pytest.raises(UsageError, match="belongs to process 1"):
            await kernel.spawn(path, {"n": "1"}, key="k")
        assert await kernel.spawn(path, {"n": "1"}) == 2


async def test_two_kernels_never_share_a_home(world: World) -> None:
    async with world.open(by_turn(says("ok"))):
        with pytest.raises(HomeLockedError, match="another kernel"):
            async with mains.open(world.folder / "home"):
                pass


async def test_a_boot_takes_up_everybody(world: World) -> None:
    async with world.open(_never, slots=10, term_grace_s=1) as kernel:
        path = world.program("p", "tools: [sleep]")
        pids = [await kernel.spawn(path) for _ in range(30)]
        await world.until_state(kernel, pids[0], "RUNNING")
    async with world.open(by_turn(says("ok"))) as kernel:
        assert [(await kernel.wait(pid, 10)).result for pid in pids] == ["ok"] * 30


async def test_what_was_acknowledged_is_there_after_a_boot(world: World) -> None:
    async with world.open(by_turn(calls(call("ask", question="name?")), says("ok"))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
    async with world.open(by_turn(calls(call("ask", question="name?")), says("ok"))) as kernel:
        assert (await kernel.outcome(pid)).reason == "human"
        await kernel.answer(pid, "Ada")
        assert (await kernel.wait(pid, 10)).result == "ok"
    assert world.asked[-1].messages[-1].text == "Ada"
    assert len(world.asked) == 2
