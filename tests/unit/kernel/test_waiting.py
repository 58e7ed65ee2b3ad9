"""Whoever waits for a process learns that it is stuck, in whatever order it came to that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, call, calls, says, turn_of

import mains
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Signal


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def is_child(request: Request) -> bool:
    return request.messages[0].text == "Be small."


async def test_the_child_stopped_before_its_parent_waits_for_it(world: World) -> None:
    hold = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if turn_of(request) == 0:
            return calls(call("spawn", program="child"))
        await hold.wait()
        return calls(call("wait"))

    world.program("child", "budget: 20", prose="Be small.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("boss", "tools: [spawn(child), wait]"))
        await world.until_state(kernel, pid + 1, "STOPPED", "breaker")
        waiting = asyncio.ensure_future(kernel.wait(pid, 60))
        await world.until_state(kernel, pid, "RUNNING")
        hold.set()
        outcome = await waiting
        assert outcome.reason.startswith(f"child: process {pid + 1} is STOPPED (breaker")


async def test_the_last_child_at_work_ends_beside_one_that_stopped(world: World) -> None:
    hold = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if is_child(request):
            if "stop" in request.messages[1].text:
                raise ValueError("broken")
            await hold.wait()
            return says("done")
        if turn_of(request) == 0:
            inputs = [{"prompt": "stop"}, {"prompt": "go on"}]
            return calls(*(call("spawn", program="child", inputs=each) for each in inputs))
        return calls(call("wait"))

    world.program("child", prose="Be small.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("boss", "tools: [spawn(child), wait]"))
        waiting = asyncio.ensure_future(kernel.wait(pid, 60))
        await world.until_state(kernel, pid + 1, "STOPPED", "error")
        await world.until_state(kernel, pid, "WAITING", "child")
        assert not waiting.done()
        hold.set()
        assert (await waiting).reason.startswith(f"child: process {pid + 1} is STOPPED (error")


async def test_calls_that_end_together_are_followed_by_what_comes_after_them(world: World) -> None:
    gates = [asyncio.Event() for _ in range(12)]

    @mains.device(read_only=True)
    async def look(at: int) -> str:
        """Look at something."""
        await gates[at].wait()
        return "seen"

    @mains.device
    async def press() -> str:
        """Press it."""
        return "pressed"

    def answer(request: Request) -> Reply:
        at = int(request.messages[1].text)
        if turn_of(request):
            return says("done")
        return calls(call("look", at=at), call("look", at=at), call("look", at=at), call("press"))

    async with world.open(answer, slots=20, devices=[look, press]) as kernel:
        program = world.program("presser", "tools: look, press")
        pids = [await kernel.spawn(program, {"prompt": str(at)}) for at in range(len(gates))]
        for pid, gate in zip(pids, gates, strict=True):
            await world.until_state(kernel, pid, "RUNNING")
            await world.until(lambda pid=pid: _flying(kernel, pid, 3))  # type: ignore[misc]
            gate.set()
        for pid in pids:
            assert (await kernel.wait(pid, 60)).result == "done"


async def _flying(kernel: Desk, pid: int, wanted: int) -> bool:
    states = [each["state"] for each in (await kernel.show(pid))["open_calls"]]
    return states.count("in flight") == wanted


async def test_a_fork_at_work_does_not_hide_it(world: World) -> None:
    async def answer(request: Request) -> Reply:
        if is_child(request):
            raise ValueError("broken")
        if turn_of(request) == 0:
            return calls(call("spawn", program="child"))
        return calls(call("wait"))

    world.program("child", prose="Be small.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("boss", "tools: [spawn(child), wait]"))
        await world.until_state(kernel, pid + 1, "STOPPED", "error")
        fork = await kernel.fork(pid)
        await kernel.signal(fork, Signal.STOP)
        assert (await kernel.wait(pid, 60)).reason.startswith("child")
