"""A kernel that dies with three hundred processes at work: the next one takes up each of them where it was."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.kernel import reckon
from mains.kernel.ports import Reply, Request

_RUNNING, _READY, _ACTING = 100, 200, 20


def _die_at_work(folder: Path) -> None:
    """In a child: 100 model calls and 20 device calls in flight, 200 processes in the queue; then the world ends."""
    world = World(folder)
    acting: list[str] = []

    @mains.device
    async def act(context: mains.CallContext) -> str:
        """Act."""
        acting.append(context.key)
        with (folder / "effects").open("a") as file:
            file.write(f"{context.key}\n")
        await asyncio.Event().wait()
        return ""

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Act.":
            return calls(call("act"))
        await asyncio.Event().wait()
        raise AssertionError

    async def live() -> None:
        async with world.open(answer, devices=[act], slots=_RUNNING) as kernel:
            actor, asker = world.program("actor", "tools: [act]", "Act."), world.program("p", "max_tokens: 50")
            await asyncio.gather(*[kernel.spawn(actor) for _ in range(_ACTING)])
            await world.until(lambda: _all(len(acting) == _ACTING))
            await asyncio.gather(*[kernel.spawn(asker) for _ in range(_RUNNING + _READY)])
            await world.until(lambda: _all(len(world.asked) == _ACTING + _RUNNING))
            os._exit(77)

    asyncio.run(live())


async def _all(holds: bool) -> bool:
    return holds


def _killed(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        try:
            _die_at_work(folder)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_each_of_three_hundred_goes_on_where_it_was(tmp_path: Path) -> None:
    assert _killed(tmp_path) == 77
    asyncio.run(_take_up(World(tmp_path)))


async def _take_up(world: World) -> None:
    @mains.device
    async def act(context: mains.CallContext) -> str:
        """Act."""
        with (world.folder / "effects").open("a") as file:
            file.write(f"{context.key}\n")
        return "acted"

    async with world.open(by_turn(says("ok")), devices=[act], slots=50, wakes_per_commit_max=30) as kernel:
        everybody = range(1, _ACTING + _RUNNING + _READY + 1)
        outcomes = {pid: await kernel.wait(pid, 20) for pid in everybody}
        doubtful = [pid for pid, outcome in outcomes.items() if outcome.reason.startswith("in doubt")]
        assert doubtful == list(range(1, _ACTING + 1)), "in doubt: those in flight, and nobody else"
        states = Counter(outcome.state for outcome in outcomes.values())
        assert states == {"EXITED": _RUNNING + _READY, "STOPPED": _ACTING}
        charged = Counter(outcomes[pid].usage.total > 15 for pid in everybody if pid > _ACTING)
        assert charged == {True: _RUNNING, False: _READY}, "charged whole: calls that may have run, and no other"
        for number, pid in enumerate(doubtful):
            await kernel.answer(pid, "retry" if number % 2 else 'done="it was"')
        assert {(await kernel.wait(pid, 10)).result for pid in doubtful} == {"ok"}
        assert reckon.verify(kernel.journal) == []
        history = [notice.kind for notice in await kernel.history(_ACTING + 1)]
        assert history == ["spawned", "asked", "ask_failed", "asked", "replied", "exited"]
    effects = Counter((world.folder / "effects").read_text().split())
    assert Counter(effects.values()) == {1: _ACTING // 2, 2: _ACTING // 2}, "made again: those that a person said, once"


def test_a_boot_over_a_boot_changes_nothing(tmp_path: Path) -> None:
    assert _killed(tmp_path) == 77

    async def boots() -> None:
        world = World(tmp_path)

        async def hang(request: Request) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        charged = []
        for _ in range(3):
            async with world.open(hang, slots=1) as kernel:
                charged.append(sum(p.tokens for p in await kernel.ps()))
        assert charged[0] > _RUNNING * 50
        assert charged[2] - charged[0] <= 2 * 200, "a boot charges what was in flight, and only that"

    asyncio.run(boots())
