"""Backends over HTTP that refuse, die and come back, and engines that serve one model together: a whole kernel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from tests.unit.endpoint_box import started
from tests.unit.kernel.world import World, says

from mains.errors import EngineError, Spent
from mains.kernel.desk import Desk
from mains.kernel.event import AnyEvent, Asked, Rerouted
from mains.kernel.ports import Reply, Request
from mains.testing import ScriptedEngine

_LONG: dict[str, Any] = {
    "breaker_open_ms": 600_000,
    "breaker_open_ceiling_ms": 600_000,
}  # no probe before time is made to pass
Answer = Callable[["Upstream", dict[str, Any]], Awaitable[web.Response]]


def served(text: str = "ok", **headers: str) -> web.Response:
    said = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5}}  # fmt: skip
    return web.json_response(said, headers=headers)


def sleeping(seconds: int = 60) -> web.Response:
    """A reply that makes one call."""
    call = {"id": "c1", "function": {"name": "sleep", "arguments": f'{{"seconds": {seconds}}}'}}
    said = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5}}  # fmt: skip
    return web.json_response(said)


def refused(status: int = 429, **headers: str) -> web.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": {"message": "not now"}}, status=status, headers=named)


class Upstream:
    """A server that counts who comes and when, by the kernel's clock."""

    def __init__(self, world: World, answer: Answer) -> None:
        self.answer = answer
        self.at_ms: list[int] = []
        self.busy = 0
        self.busiest = 0
        self._world = world
        self.url = ""

    async def __call__(self, request: web.Request) -> web.Response:
        self.at_ms.append(self._world.clock.now_ms())
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            return await self.answer(self, await request.json())
        finally:
            self.busy -= 1


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as held:
        yield held


async def up(stack: contextlib.AsyncExitStack, world: World, answer: Answer) -> Upstream:
    upstream = Upstream(world, answer)
    upstream.url = await started(stack, upstream, "/chat/completions")
    return upstream


def configure(world: World, **engines: str) -> None:
    """Write mains.toml: the lines of each engine."""
    home: Path = world.folder / "home"
    home.mkdir(exist_ok=True)
    tables = [f'[engines.{name}]\nkind = "openai"\nmodel = "m"\n{lines}\n' for name, lines in engines.items()]
    (home / "mains.toml").write_text("\n".join(tables))


def at(upstream: Upstream, more: str = "") -> str:
    return f'url = "{upstream.url}"\nstream = false\n{more}'


def never(request: Request) -> Reply:
    raise AssertionError("the default engine is not asked")


def at_work(kernel: Desk) -> bool:
    """Whether any turn is. While one is, no time passes here: a real server answers in real time."""
    return bool(kernel._kernel._turns)


async def ended(world: World, kernel: Desk, pids: list[int], step_ms: int = 0) -> list[str]:
    """The results of all, while time passes in steps."""
    for pid in pids:

        async def over(pid: int = pid) -> bool:
            if step_ms and not at_work(kernel):
                world.clock.advance(step_ms)
            outcome = await kernel.outcome(pid)
            assert outcome.state != "STOPPED", outcome.reason
            return outcome.exit_code is not None

        await world.until(over)
    return [str((await kernel.outcome(pid)).result) for pid in pids]


async def rest(world: World, kernel: Desk) -> None:
    """Let everything happen that happens without time."""
    for _ in range(50):
        await asyncio.sleep(0)

    async def still() -> bool:
        return not at_work(kernel)

    await world.until(still)


async def asked_of(kernel: Desk, pid: int) -> list[str]:
    """Which engines a process asked, as the journal has it."""
    events = [msgspec.json.decode(notice.text, type=AnyEvent) for notice in await kernel.history(pid)]
    return [event.asking.engine for event in events if isinstance(event, Asked)]


async def health(kernel: Desk, name: str) -> str:
    return next(state.health for state in kernel.engines() if state.name == name)


# ------------------------------------------------------------------------------------------- one backend


async def test_a_retry_after_is_heard_once_for_twenty_agents(world: World, stack: contextlib.AsyncExitStack) -> None:
    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused(Retry_After="30") if world.clock.now_ms() < start_ms + 30_000 else served()

    start_ms = world.clock.now_ms()
    upstream = await up(stack, world, answer)
    configure(world, a=at(upstream, "slots = 4"))
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: a")) for _ in range(20)]

        async def told() -> bool:
            return (await health(kernel, "a")).startswith("no call for 30 s: too much to do")

        await world.until(told)
        await rest(world, kernel)
        first = len(upstream.at_ms)
        assert first <= 4, "only those who were at work when it said so"
        world.clock.advance(29_000)
        await rest(world, kernel)
        assert len(upstream.at_ms) == first
        world.clock.advance(1_000)
        assert await ended(world, kernel, pids, step_ms=100) == ["ok"] * 20
        assert len(upstream.at_ms) == first + 20
        assert await health(kernel, "a") == "ok"


async def test_refusals_that_name_no_time_are_not_repeated_by_every_agent(
    world: World, stack: contextlib.AsyncExitStack
) -> None:
    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused() if world.clock.now_ms() < start_ms + 3_000 else served()

    start_ms = world.clock.now_ms()
    upstream = await up(stack, world, answer)
    configure(world, a=at(upstream, "slots = 8"))
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: a")) for _ in range(20)]
        assert await ended(world, kernel, pids, step_ms=50) == ["ok"] * 20
    refusals = [at_ms for at_ms in upstream.at_ms if at_ms < start_ms + 3_000]
    assert len(refusals) <= 8 + 4 + 2 + 1, "fewer each time, and not each agent by itself"


async def test_calls_a_minute_hold_for_everybody_together(world: World, stack: contextlib.AsyncExitStack) -> None:
    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return served()

    upstream = await up(stack, world, answer)
    configure(world, a=at(upstream, "rpm = 6"))
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: a")) for _ in range(20)]
        await ended(world, kernel, pids, step_ms=1_000)
    assert len(upstream.at_ms) == 20
    for start_ms in upstream.at_ms:
        assert sum(start_ms <= at_ms < start_ms + 60_000 for at_ms in upstream.at_ms) <= 6


async def test_what_the_backend_says_is_left_is_enough_to_never_be_refused(
    world: World, stack: contextlib.AsyncExitStack
) -> None:
    left = 5.0
    seen_ms = world.clock.now_ms()

    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        """A bucket of 5 calls that gets one more each 2 s."""
        nonlocal left, seen_ms
        now_ms = world.clock.now_ms()
        left, seen_ms = min(5.0, left + (now_ms - seen_ms) / 2_000), now_ms
        if left < 1:
            refusals.append(now_ms)
            return refused()
        left -= 1
        return served(**{"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": str(int(left)),
                         "x-ratelimit-reset-requests": f"{round((5 - left) * 2_000)}ms"})  # fmt: skip

    refusals: list[int] = []
    upstream = await up(stack, world, answer)
    configure(world, a=at(upstream, "slots = 2"))
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: a")) for _ in range(20)]
        await ended(world, kernel, pids, step_ms=100)
    assert refusals == []
    assert upstream.at_ms[-1] - upstream.at_ms[0] < 60_000, "and no slower than need be"


async def test_a_wrong_key_is_told_at_once_however_often(world: World, stack: contextlib.AsyncExitStack) -> None:
    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused(401)

    upstream = await up(stack, world, answer)
    configure(world, a=at(upstream))
    async with world.open(never) as kernel:
        for _ in range(8):
            done = await kernel.wait(await kernel.spawn(world.program("p", "model: a")))
            assert done.state == "STOPPED"
            assert "401" in done.reason
        assert (await health(kernel, "a")).startswith("down: ")
    assert len(upstream.at_ms) == 8


# ------------------------------------------------------------------------------ several engines of one model


async def pair(
    stack: contextlib.AsyncExitStack, world: World, a: Answer, b: Answer, more: str = ""
) -> tuple[Upstream, Upstream]:
    one, two = await up(stack, world, a), await up(stack, world, b)
    configure(world, a=at(one, more), b=at(two, more))
    return one, two


async def test_two_engines_of_one_model_share_the_load(world: World, stack: contextlib.AsyncExitStack) -> None:
    go = asyncio.Event()

    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        await asyncio.wait_for(go.wait(), 60)
        return served()

    one, two = await pair(stack, world, answer, answer)
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: m")) for _ in range(8)]

        async def all_are_there() -> bool:
            return one.busy + two.busy == 8

        await world.until(all_are_there)
        assert (one.busy, two.busy) == (4, 4)
        go.set()
        await ended(world, kernel, pids)
        where = [await asked_of(kernel, pid) for pid in pids]
        assert sorted(where) == [["a"]] * 4 + [["b"]] * 4


async def test_who_names_an_engine_gets_that_one(world: World, stack: contextlib.AsyncExitStack) -> None:
    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return served()

    one, two = await pair(stack, world, answer, answer)
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: b")) for _ in range(4)]
        await ended(world, kernel, pids)
    assert (len(one.at_ms), len(two.at_ms)) == (0, 4)


async def test_a_process_stays_where_its_prompt_is_warm(world: World, stack: contextlib.AsyncExitStack) -> None:
    def turns(said: dict[str, Any]) -> int:
        return sum(message["role"] == "assistant" for message in said["messages"])

    async def answer(it: Upstream, said: dict[str, Any]) -> web.Response:
        return sleeping() if turns(said) < 3 else served()

    await pair(stack, world, answer, answer)
    async with world.open(never) as kernel:
        prose = "Know this. " * 2_000
        pids = [await kernel.spawn(world.program("p", "model: m\ntools: [sleep]", prose)) for _ in range(4)]
        await ended(world, kernel, pids, step_ms=1_000)
        where = [await asked_of(kernel, pid) for pid in pids]
    assert all(len(engines) == 4 for engines in where)
    moves = sum(one != two for engines in where for one, two in itertools.pairwise(engines))
    assert moves == 0, where


async def test_an_engine_that_dies_is_failed_over_and_comes_back(
    world: World, stack: contextlib.AsyncExitStack
) -> None:
    dead = True

    async def mortal(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused(500) if dead else served("from a")

    async def sound(it: Upstream, said: dict[str, Any]) -> web.Response:
        return served("from b")

    one, _ = await pair(stack, world, mortal, sound)
    async with world.open(never, **_LONG) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: m")) for _ in range(12)]
        assert await ended(world, kernel, pids, step_ms=10) == ["from b"] * 12
        assert (await health(kernel, "a")).startswith("down: engine a: 500")
        known = len(one.at_ms)
        more = [await kernel.spawn(world.program("p", "model: m")) for _ in range(5)]
        assert await ended(world, kernel, more) == ["from b"] * 5
        assert len(one.at_ms) == known, "nobody is sent to an engine that is down"
        dead = False
        world.clock.advance(600_000)
        late = [await kernel.spawn(world.program("p", "model: m")) for _ in range(5)]
        assert "from a" in await ended(world, kernel, late)
        assert await health(kernel, "a") == "ok"


async def test_who_waits_for_an_engine_that_asks_to_wait_goes_to_the_other(
    world: World, stack: contextlib.AsyncExitStack
) -> None:
    async def busy(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused(Retry_After="300")

    async def sound(it: Upstream, said: dict[str, Any]) -> web.Response:
        return served("from b")

    one, _ = await pair(stack, world, busy, sound, "slots = 1")
    start_ms = world.clock.now_ms()
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: m")) for _ in range(10)]
        assert await ended(world, kernel, pids, step_ms=10) == ["from b"] * 10
    assert len(one.at_ms) == 1
    assert world.clock.now_ms() - start_ms < 300_000


async def test_an_idle_engine_takes_who_waits_for_a_slow_one(world: World, stack: contextlib.AsyncExitStack) -> None:
    go = asyncio.Event()

    async def slow(it: Upstream, said: dict[str, Any]) -> web.Response:
        await asyncio.wait_for(go.wait(), 60)
        return served("from a")

    async def quick(it: Upstream, said: dict[str, Any]) -> web.Response:
        return served("from b")

    one, two = await pair(stack, world, slow, quick, "slots = 1")
    async with world.open(never) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: m")) for _ in range(9)]

        async def rest_is_done() -> bool:
            return len(two.at_ms) == 8 and two.busy == 0

        await world.until(rest_is_done)
        assert len(one.at_ms) == 1
        go.set()
        assert sorted(await ended(world, kernel, pids)) == ["from a"] + ["from b"] * 8


async def test_a_chain_leaves_an_engine_that_is_down_without_a_call_and_tries_it_again(world: World) -> None:
    dead = True

    def mortal(request: Request) -> Reply:
        if dead:
            raise EngineError("down", retryable=True, spent=Spent.NOTHING)
        return says("from a")

    calls: list[Request] = []

    def counted(request: Request) -> Reply:
        calls.append(request)
        return mortal(request)

    a, b = ScriptedEngine.of(counted, name="a", slots=2), ScriptedEngine.of(lambda _: says("from b"), name="b", slots=9)
    async with world.open(never, others=[a, b], **_LONG) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: [a, b]")) for _ in range(12)]
        assert await ended(world, kernel, pids, step_ms=10) == ["from b"] * 12
        known = len(calls)
        assert known < 12, "most were never sent to it"
        last = await kernel.spawn(world.program("p", "model: [a, b]"))
        assert await ended(world, kernel, [last]) == ["from b"]
        moved = [
            e
            for n in await kernel.history(last)
            if isinstance(e := msgspec.json.decode(n.text, type=AnyEvent), Rerouted)
        ]
        assert "engine a is down" in moved[0].reason
        assert len(calls) == known
        dead = False
        world.clock.advance(600_000)
        assert await ended(world, kernel, [await kernel.spawn(world.program("p", "model: [a, b]"))]) == ["from a"]


async def test_when_all_are_down_they_wait_for_the_first_that_comes_back(
    world: World, stack: contextlib.AsyncExitStack
) -> None:
    dead = True

    async def mortal(it: Upstream, said: dict[str, Any]) -> web.Response:
        return refused(500) if dead else served()

    await pair(stack, world, mortal, mortal)
    async with world.open(never, model_attempts_max=100) as kernel:
        pids = [await kernel.spawn(world.program("p", "model: m")) for _ in range(4)]

        async def both_are_down() -> bool:
            world.clock.advance(10)
            return all([(await health(kernel, name)).startswith("down") for name in "ab"])

        await world.until(both_are_down)
        dead = False
        assert await ended(world, kernel, pids, step_ms=100) == ["ok"] * 4
