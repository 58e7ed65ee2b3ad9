"""Every limit holds, says its name, and harms nobody else."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.kernel.world import World, by_turn, call, calls, says, turn_of

import mains
from mains import Signal
from mains.errors import LimitError, UsageError
from mains.kernel.journal import Journal
from mains.kernel.ports import Reply, Request, Usage


def _results(world: World) -> list[str]:
    return [m.text for m in world.asked[-1].messages if m.role == "tool"]


@pytest.mark.parametrize(("read_only", "idempotent"), [(True, False), (False, True), (False, False)])
async def test_a_device_that_hangs_is_given_up(world: World, read_only: bool, idempotent: bool) -> None:
    """A call that may be repeated is an error for the model; of another nobody knows whether it happened."""
    broken_off: list[str] = []

    @mains.device(read_only=read_only, idempotent=idempotent)
    async def hang() -> str:
        """Hang."""
        try:
            await asyncio.Event().wait()
        finally:
            broken_off.append("hang")
        return ""

    async with world.open(by_turn(calls(call("hang")), says("ok")), devices=[hang], device_timeout_s=0.05) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [hang]"))
        outcome = await kernel.wait(pid, 10)
        if not (read_only or idempotent):
            assert outcome.reason.startswith("in doubt")
            await kernel.answer(pid, "skip")
            outcome = await kernel.wait(pid, 10)
        assert outcome.result == "ok"
    assert broken_off == ["hang"]
    assert ("device_timeout_s" in _results(world)[0]) == (read_only or idempotent)


async def test_no_more_device_calls_are_in_flight_than_the_limit(world: World) -> None:
    inside, most = 0, 0

    @mains.device(read_only=True)
    async def look() -> str:
        """Look."""
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        for _ in range(20):
            await asyncio.sleep(0)
        inside -= 1
        return ""

    reply = calls(*[call("look") for _ in range(8)])
    async with world.open(by_turn(reply, says("ok")), devices=[look], device_calls_max=5) as kernel:
        pids = [await kernel.spawn(world.program("p", "tools: [look]")) for _ in range(4)]
        assert {(await kernel.wait(pid, 20)).result for pid in pids} == {"ok"}
    assert most == 5


async def test_children_are_counted_alive_or_ended(world: World) -> None:
    world.program("child", "", "Child.")
    spawn = call("spawn", program="child")
    parent = by_turn(calls(spawn, spawn), calls(call("wait")), calls(spawn, spawn), says("done"))

    def answer(request: Request) -> object:
        return says("c") if request.messages[0].text == "Child." else parent(request)

    async with world.open(answer, children_max=3) as kernel:  # type: ignore[arg-type]
        assert (await kernel.wait(await kernel.spawn(world.program("p", "tools: [spawn(child), wait]")), 10)).result
        assert len(await kernel.ps(every=True)) == 4
    assert [text.startswith("error") for text in _results(world)] == [False, False, False, False, True]
    assert "children_max" in _results(world)[-1]


async def test_spawn_each_starts_all_or_none(world: World) -> None:
    world.program("child", "inputs: {word: text}", "Child {{word}}.")
    each = call("spawn_each", program="child", over="words")

    def answer(request: Request) -> Reply:
        if request.messages[0].text.startswith("Child"):
            return says(request.messages[0].text[6:-1].upper())
        return (calls(each), says("done"))[turn_of(request)]

    async with world.open(answer, children_max=3) as kernel:
        path = world.program("p", "tools: [spawn_each(child)]\ninputs: {words: json}")
        await kernel.wait(await kernel.spawn(path, {"words": '["a", "b", "c"]'}), 10)
        assert _results(world) == ["- **a**: A\n- **b**: B\n- **c**: C"]
        before = len(await kernel.ps(every=True))
        for words in ('["a", "b", "c", "d"]', '{"a": 1}', '["a", null]'):
            await kernel.wait(await kernel.spawn(path, {"words": words}), 10)
            assert _results(world)[-1].startswith("error"), words
        assert len(await kernel.ps(every=True)) == before + 3
        await kernel.wait(await kernel.spawn(path, {"words": "[]"}), 10)
        assert not _results(world)[-1].startswith("error")


async def test_a_mailbox_is_bounded_in_letters_and_in_bytes(world: World) -> None:
    answer = by_turn(calls(call("ask", question="?")), says("ok"))
    async with world.open(answer, mailbox_messages_max=3, message_bytes_max=10) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [ask]"))
        await world.until_state(kernel, pid, "WAITING", "human")
        with pytest.raises(UsageError, match="message_bytes_max"):
            await kernel.send(pid, "ö" * 6)
        with pytest.raises(UsageError, match="empty"):
            await kernel.send(pid, "")
        for n in range(3):
            await kernel.send(pid, f"letter {n}")
        with pytest.raises(LimitError, match="mailbox_messages_max"):
            await kernel.send(pid, "letter 4")
        with pytest.raises(UsageError, match="message_bytes_max"):
            await kernel.answer(pid, "yes " * 100)
        await kernel.answer(pid, "yes")
        assert (await kernel.wait(pid, 10)).result == "ok"
    assert [m.text for m in world.asked[-1].messages[-3:]] == ["letter 0", "letter 1", "letter 2"]


async def test_at_no_position_of_the_journal_is_any_limit_passed(world: World) -> None:
    """Fifty processes under their own, their parents' and a grandparent's limits; usage is random, and too much."""
    chance = random.Random(20)
    world.program("leaf", "inputs: {n: number}\nmax_tokens: 90\ntools: [receive]\nbudget: 900", "Leaf {{n}}.")
    world.program("mid", "tools: [spawn(leaf)]\nmax_tokens: 200\nbudget: 9000", "Mid.")

    async def answer(request: Request) -> Reply:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        used = Usage(20, 0, chance.choice([0, 5, 60, 90, 400]))
        if request.messages[0].text.startswith("Leaf"):
            again = turn_of(request) < 2
            return Reply("ok", (call("receive", timeout_s=0),) if again else (), used)
        if turn_of(request):
            return Reply("done", usage=used)
        spawns = [call("spawn", program="leaf", inputs={"n": n}) for n in range(12)]
        made = spawns if "Mid" in request.messages[0].text else [call("spawn", program="mid")] * 4
        return Reply("", tuple(made), used)

    async with world.open(answer, slots=20) as kernel:
        root = await kernel.spawn(world.program("root", "tools: [spawn(mid)]\nmax_tokens: 200", "Root."), budget=12_000)
        await world.until(lambda: _settled(kernel, 40))
        _check_positions(kernel.journal)
        spent = (await kernel.show(root))["accounts"][0]
        assert spent["posted"] + spent["overrun"] > 6_000, "the limit was never near"
        assert spent["overrun"] > 0
        assert any(p.reason.startswith("breaker") for p in await kernel.ps())


async def _settled(kernel: mains.kernel.desk.Desk, least: int) -> bool:
    everybody = await kernel.ps(every=True)
    resting = all(p.state == "EXITED" or p.reason.startswith("breaker") for p in everybody)
    return resting and len(everybody) >= least and not kernel.busy()


def _check_positions(journal: Journal) -> None:
    limits = {row[0]: row[2] for row in journal.rows("account_all")}
    chains = {p.pid: p.accounts for p in journal.processes("process_all")}
    sums: dict[int, int] = dict.fromkeys(limits, 0)
    for _, _, kind, debit, credit, tokens, *_ in journal.rows("entry_all"):
        for account in chains[max(debit, credit)]:
            sums[account] += -tokens if kind == "released" else tokens
            limit = limits[account]
            if kind == "held" and limit is not None:
                assert sums[account] <= limit, f"account {account} was granted what it had not"


@pytest.mark.parametrize("rounds", range(12))
async def test_no_child_is_born_in_a_tree_that_was_told_to_end(world: World, rounds: int) -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            await asyncio.Event().wait()
        asked.set()
        await asyncio.wait_for(gate.wait(), 10)
        return calls(call("spawn", program="child"), call("wait"))

    world.program("child", "", "Child.")
    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [spawn(child), wait]"))
        await asyncio.wait_for(asked.wait(), 10)
        term = asyncio.create_task(kernel.signal(pid, Signal.TERM))
        if rounds % 2:
            await asyncio.sleep(0)
        gate.set()
        for _ in range(rounds // 2):
            await asyncio.sleep(0)
        await term
        assert (await kernel.wait(pid, 10)).exit_code == 143
        for _ in range(60):
            await asyncio.sleep(0)
        assert await kernel.ps() == [], "a child outlived the tree it was born in"


async def test_watchers_are_bounded_and_a_slow_one_is_cut_off(world: World) -> None:
    endless = by_turn(calls(call("receive", timeout_s=0)))
    async with world.open(endless, watchers_max=1, watcher_events_max=5, turns_max=30) as kernel:
        seen = []
        watcher = kernel.watch()
        first = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        with pytest.raises(LimitError, match="watchers_max"):
            await anext(kernel.watch())
        await kernel.wait(await kernel.spawn(world.program("p", "tools: [receive]")), 10)
        seen.append((await first).kind)
        seen += [notice.kind async for notice in watcher]
        assert seen[-1] == "cut"
        assert len(seen) < 10


async def test_who_has_ended_leaves_no_timer_behind(world: World) -> None:
    async with world.open(by_turn(calls(call("sleep", seconds=86_400)))) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: [sleep]"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        assert kernel.busy()
        await kernel.signal(pid, Signal.KILL)
        assert not kernel.busy(), "a daemon would stay up for it"
