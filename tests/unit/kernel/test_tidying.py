"""A conversation at rest whose frame is large: old turns are summed up meanwhile, in band batch, for nobody waits."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.kernel.world import World, call, says

from mains.errors import EngineError, Spent
from mains.kernel import past
from mains.kernel.context import tokens_of
from mains.kernel.desk import Desk
from mains.kernel.ports import Finish, Reply, Request, Signal, Usage

FRONT = "frame_tokens: 3000\nmax_tokens: 200"
FULL = 6  # so many turns fill the frame above its high mark
LONG = "What was said before matters. " * 24  # some 240 tokens as a message, and as many as an answer


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def is_summary(request: Request) -> bool:
    return request.messages[-1].text.startswith("Everything above")


def answer(request: Request) -> Reply:
    """Much, and little of what was before."""
    return says("Much was said.") if is_summary(request) else says(LONG)


async def talk(world: World, kernel: Desk, pid: int, times: int) -> None:
    for n in range(times):
        await kernel.send(pid, f"{n}: {LONG}")
        await world.until(lambda: _rests(kernel, pid))


async def _rests(kernel: Desk, pid: int) -> bool:
    outcome = await kernel.outcome(pid)
    return outcome.state == "WAITING" and outcome.reason.startswith("message")


def kinds(kernel: Desk, pid: int) -> list[str]:
    return [kind for _, _, _, kind, _ in kernel.journal.rows("event_of", pid, 0, 10_000)]


async def test_old_turns_are_summed_up_before_the_next_message_comes(world: World) -> None:
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), conversation=True)
        await talk(world, kernel, pid, 12)
        summaries = [at for at, request in enumerate(world.asked) if is_summary(request)]
        assert len(summaries) >= 2
        happened = kinds(kernel, pid)
        for at, kind in enumerate(happened):
            if kind == "evicted":
                assert happened[at - 2 : at] == ["rested", "asked"], "it began while the conversation was at rest"
        for at in summaries:
            before, after = world.asked[at], world.asked[at + 1]
            assert not is_summary(after)
            assert sum(map(tokens_of, after.messages)) < sum(map(tokens_of, before.messages))
        assert all(each.past.frame_hash() == each.journalled for each in past.frames(kernel.journal, pid))
        assert (await kernel.outcome(pid)).usage.output_tokens == 5 * len(world.asked), "it is metered"


async def _has_settled(kernel: Desk, pid: int) -> bool:
    return await _rests(kernel, pid) or (await kernel.outcome(pid)).reason == "tidying"


async def test_a_result_is_shown_in_part_before_old_turns_leave(world: World) -> None:
    """A turn that ends with a call that could not be made: its result is large, and the frame too."""

    def answer_badly(request: Request) -> Reply:
        if is_summary(request):
            return says("Much was said.")
        return Reply(LONG, (call("sleep", seconds="long " * 100),), Usage(10, 0, 5), Finish.CALLS)

    async with world.open(answer_badly, mends_max=0, view_tokens_max=80) as kernel:
        pid = await kernel.spawn(world.program("talker", f"tools: [sleep]\n{FRONT}"), conversation=True)
        await talk(world, kernel, pid, 12)
        assert "rested evicted asked evicted" in " ".join(kinds(kernel, pid)), "first the result, then old turns"
        assert all(each.past.frame_hash() == each.journalled for each in past.frames(kernel.journal, pid))


async def test_others_go_first_and_a_message_makes_it_a_turn_at_once(world: World) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request) -> Reply:
        if request.messages[-1].text == "hold the slot":
            begun.set()
            await gate.wait()
        return answer(request)

    async with world.open(slowly, slots=1) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), conversation=True)
        await talk(world, kernel, pid, FULL - 1)
        blocker = await kernel.spawn(world.program("blocker", prose="Wait."), {"prompt": "hold the slot"})
        await begun.wait()
        await kernel.send(pid, LONG)  # it waits for the slot; behind it another, and then its own tidying
        others = [await kernel.spawn(world.program("other"), {"prompt": f"other {n}"}) for n in range(3)]
        gate.set()
        for each in (blocker, *others):
            await kernel.wait(each, 30)
        await world.until(lambda: _rests(kernel, pid))
        order = ["tidy" if is_summary(r) else r.messages[-1].text[:5] for r in world.asked[-5:]]
        assert order == ["What ", "other", "other", "other", "tidy"]


async def test_a_message_takes_the_place_of_tidying_that_waits(world: World) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()
    held = False

    async def slowly(request: Request) -> Reply:
        if is_summary(request) and not held:
            raise AssertionError("a summary came before the message")
        if request.messages[-1].text == "hold the slot":
            begun.set()
            await gate.wait()
        return answer(request)

    async with world.open(slowly, slots=1) as kernel:
        talker = world.program("talker", FRONT)
        pid = await kernel.spawn(talker, conversation=True)
        await talk(world, kernel, pid, FULL - 1)
        await kernel.send(pid, LONG)
        blocker = await kernel.spawn(world.program("blocker", prose="Wait."), {"prompt": "hold the slot"})
        await begun.wait()
        await world.until_state(kernel, pid, "READY", "tidying")
        held = True
        await kernel.send(pid, "quick")
        assert (await kernel.outcome(pid)).reason == ""
        gate.set()
        await kernel.wait(blocker, 30)
        await world.until(lambda: _rests(kernel, pid))
        assert sum(r.messages[-1].text == "quick" for r in world.asked) == 1


async def test_an_engine_that_fails_leaves_the_frame_as_it_is(world: World) -> None:
    def broken(request: Request) -> Reply:
        if is_summary(request):
            raise EngineError("engine test: no", retryable=False, spent=Spent.NOTHING)
        return says(LONG)

    async with world.open(broken) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), conversation=True)
        await talk(world, kernel, pid, FULL)
        assert sum(map(is_summary, world.asked)) == 1, "it is not tried again while it rests"
        assert "evicted" not in kinds(kernel, pid)
        p = kernel.journal.process(pid)
        assert p is not None and p.failures == 0, "the next turn has all its tries"
        await kernel.send(pid, LONG)
        await world.until(lambda: _rests(kernel, pid))
        assert "evicted" in kinds(kernel, pid), "a turn that needs the room makes it, with an extract"


async def test_without_room_nothing_is_spent_and_nobody_waits(world: World) -> None:
    def costly(request: Request) -> Reply:
        last = request.messages[-1].text.startswith(f"{FULL - 1}: ")
        return Reply(LONG, usage=Usage(2_300, 0, 200)) if last else answer(request)

    async with world.open(costly) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), budget=3_000, conversation=True)
        await talk(world, kernel, pid, FULL)
        outcome = await kernel.outcome(pid)
        assert (outcome.state, outcome.reason) == ("WAITING", "message")
        assert kinds(kernel, pid)[-2:] == ["rested", "tidied"]
        assert not any(map(is_summary, world.asked))


@pytest.mark.parametrize("sign", [Signal.TERM, Signal.STOP, Signal.INT])
async def test_signals_find_it_while_it_is_tidying(world: World, sign: Signal) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slowly(request: Request) -> Reply:
        if is_summary(request):
            begun.set()
            await gate.wait()
        return answer(request)

    async with world.open(slowly) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), conversation=True)
        for _ in range(FULL):
            await kernel.send(pid, LONG)
            await world.until(lambda: _has_settled(kernel, pid))
        await begun.wait()
        assert (await kernel.outcome(pid)).state == "RUNNING"
        fork = await kernel.fork(pid)
        assert await _rests(kernel, fork), "a fork of it rests"
        changed = await kernel.signal(pid, sign)
        gate.set()
        if sign is Signal.TERM:
            assert (await kernel.wait(pid, 30)).exit_code == 143
        elif sign is Signal.STOP:
            await world.until_state(kernel, pid, "STOPPED", "paused")
            await kernel.signal(pid, Signal.CONT)
            await world.until(lambda: _rests(kernel, pid))
        else:
            assert not changed, "there is no turn to interrupt"
            await world.until(lambda: _rests(kernel, pid))


async def test_a_crash_in_the_middle_leaves_it_at_rest(world: World) -> None:
    begun = asyncio.Event()

    async def hanging(request: Request) -> Reply:
        if is_summary(request):
            begun.set()
            await asyncio.Event().wait()
        return answer(request)

    async with world.open(hanging) as kernel:
        pid = await kernel.spawn(world.program("talker", FRONT), conversation=True)
        for _ in range(FULL):
            await kernel.send(pid, LONG)
            await world.until(lambda: _has_settled(kernel, pid))
        await begun.wait()
    async with world.open(answer) as kernel:
        await world.until(lambda: _rests(kernel, pid))
        await talk(world, kernel, pid, 2)
        assert "evicted" in kinds(kernel, pid)
