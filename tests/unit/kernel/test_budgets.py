"""Budgets: holds before spending, for a process and everything below it."""

from __future__ import annotations

import asyncio

from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains.kernel.ports import Reply, Request, Usage


async def test_the_output_cap_is_what_the_hold_can_pay_for(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        path = world.program("p", "max_tokens: 500")
        outcome = await kernel.wait(await kernel.spawn(path, budget=100), 10)
    assert outcome.result == "ok"
    assert 16 <= world.asked[0].output_tokens_max < 100


async def test_too_little_for_a_useful_answer_opens_the_breaker_before_any_call(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p"), budget=20), 10)
    assert (outcome.state, outcome.exit_code) == ("STOPPED", None)
    assert outcome.reason.startswith("breaker: the limit of process 1 (20 tokens)")
    assert world.asked == []


async def test_a_loop_stops_at_its_budget_and_never_passes_it(world: World) -> None:
    async with world.open(by_turn(calls(call("receive", timeout_s=0)))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("p", "tools: [receive]"), budget=3_000), 20)
        posted = (await kernel.show(1))["accounts"][0]["posted"]
    assert outcome.reason.startswith("breaker")
    assert posted == outcome.usage.total <= 3_000


async def test_usage_above_the_hold_is_an_overrun_and_unknown_usage_is_the_whole_hold(world: World) -> None:
    async with world.open(by_turn(Reply("ok", usage=Usage(5_000, 0, 10)))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p"), budget=2_000), 10)
        account = (await kernel.show(1))["accounts"][0]
        assert account["overrun"] == 5_010 - account["posted"] > 0
        assert account["held"] == 0
    async with world.open(by_turn(Reply("ok", usage=None))) as kernel:
        outcome = await kernel.wait(await kernel.spawn(world.program("q", "max_tokens: 50")), 10)
        assert outcome.usage.total > 50


async def test_children_spend_their_parents_budget_together(world: World) -> None:
    world.program("child", "inputs: {n: number}\nmax_tokens: 100", "Count {{n}}.")
    spawn = calls(*[call("spawn", program="child", inputs={"n": n}) for n in range(40)])

    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Count"):
            return Reply("counted", usage=Usage(20, 0, 60))
        return (spawn, calls(call("wait")), says("done"))[min(turn_of(request), 2)]

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]\nmax_tokens: 100"), budget=2_500)
        outcome = await kernel.wait(pid, 20)
        for each in await kernel.ps():  # the parent may be stuck before the last child is
            await kernel.wait(each.pid, 20)
        account = (await kernel.show(pid))["accounts"][0]
        ended = [p for p in await kernel.ps(every=True) if p.state == "EXITED"]
    assert outcome.state in ("WAITING", "STOPPED")
    assert "breaker" in outcome.reason, "a parent that waits for stuck children says so"
    assert account["posted"] <= 2_500
    assert account["held"] == 0
    assert 10 < len(ended) < 40


async def test_room_that_others_hold_is_waited_for_and_nobody_is_forgotten(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Parent.":
            spawn = [call("spawn", program="child") for _ in range(6)]
            return (calls(*spawn), calls(call("wait")), says("done"))[turn_of(request)]
        await asyncio.wait_for(gate.wait(), 10)
        return Reply("counted", usage=Usage(10, 0, 1))

    world.program("child", "max_tokens: 1000", "Child.")
    async with world.open(answer) as kernel:
        front = "tools: [spawn(child), wait]\nmax_tokens: 100"
        pid = await kernel.spawn(world.program("p", front, "Parent."), budget=2_600)
        await world.until_state(kernel, 7, "WAITING", "quota: the limit of process 1")
        gate.set()
        assert (await kernel.wait(pid, 20)).result == "done"


async def test_one_who_waits_for_room_that_is_then_spent_learns_it(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Parent.":
            return calls(call("spawn", program="child"), call("spawn", program="child"), call("wait"))
        await asyncio.wait_for(gate.wait(), 10)
        return Reply("all of it", usage=Usage(10, 0, 990))

    world.program("child", "max_tokens: 1000", "Child.")
    async with world.open(answer) as kernel:
        front = "tools: [spawn(child), wait]\nmax_tokens: 100"
        await kernel.spawn(world.program("p", front, "Parent."), budget=1_045)
        await world.until_state(kernel, 3, "WAITING", "quota")
        gate.set()
        await world.until_state(kernel, 3, "STOPPED", "breaker")


async def test_a_fork_brings_no_fresh_budget(world: World) -> None:
    async with world.open(by_turn(Reply("ok", usage=Usage(100, 0, 300)))) as kernel:
        pid = await kernel.spawn(world.program("p", "max_tokens: 300"), budget=900)
        await kernel.wait(pid, 10)
        second = await kernel.fork(pid)
        assert (await kernel.wait(second, 10)).exit_code == 0
        third = await kernel.wait(await kernel.fork(second), 10)
        assert third.exit_code == 0
        outcome = await kernel.wait(await kernel.fork(second), 10)
    assert outcome.reason.startswith("breaker: the limit of process 1"), outcome


async def test_a_budget_must_be_above_zero(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        for budget in (0, -5):
            try:
                await kernel.spawn(world.program("p"), budget=budget)
            except mains.MainsError as error:
                assert "above zero" in str(error)
            else:
                raise AssertionError("it was taken")
        assert await kernel.ps(every=True) == []
