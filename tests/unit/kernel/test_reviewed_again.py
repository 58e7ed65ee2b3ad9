"""What a second hostile reading of ledger, quota and scheduler found: each test failed once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.test_money import NANO, NIGHT, PRICE, home, money
from tests.unit.kernel.test_reviewed_ledger import ASK, DAY_MS, HOUR_MS, Gate, soon, tokens
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import EngineError, LimitError, Spent, UsageError
from mains.kernel import reckon, timers
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Signal, Usage
from mains.testing import ScriptedEngine

# ------------------------------------------------------------------------------------------- verify


async def test_verify_knows_that_a_removed_child_counted_in_the_program_s_account_of_its_parent(world: World) -> None:
    world.program("child", prose="Child.")

    def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            return says("it")
        return by_turn(calls(call("spawn", program="child"), call("wait")), says("end"))(request)  # type: ignore[return-value]

    async with world.open(answer) as kernel:
        await kernel.budget_set("home/parent", [tokens(100_000, "day")])
        pid = await kernel.spawn(world.program("parent", "tools: [spawn(child), wait]", "Parent."))
        assert (await kernel.wait(pid, 10)).state == "EXITED"
        await kernel.remove([pid])
        assert reckon.verify(kernel.journal) == []


async def test_verify_knows_that_a_removed_process_paid_as_the_program_that_it_began_as(world: World) -> None:
    gate = Gate()
    async with world.open(gate) as kernel:
        for name in ("before", "after"):
            await kernel.budget_set(f"home/{name}", [tokens(100_000, "day")])
        pid = await kernel.spawn(world.program("before"), paused=True)
        await kernel.exec(pid, world.program("after"))
        gate.opened.set()
        await kernel.signal(pid, Signal.CONT)
        await kernel.wait(pid, 10)
        await kernel.remove([pid])
        assert reckon.verify(kernel.journal) == []


# ------------------------------------------------------------------------------------------- lost wake-ups


async def test_a_paused_waiter_whose_call_does_not_fit_holds_nobody_up(world: World) -> None:
    async with world.open(by_turn(says("ok", 1)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(2_000)])
        await kernel.hold("ann", 1_000, 500, key="first", **ASK)
        big = await kernel.spawn(world.program("big", prose="word " * 700), account="ann")
        await world.until_state(kernel, big, "WAITING", "quota")
        small = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, small, "WAITING", "quota")
        await kernel.signal(big, Signal.STOP)
        await soon(world, kernel, small, "EXITED")


async def test_room_goes_on_from_one_whose_engine_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    other = ScriptedEngine.of(by_turn(says("ok")), name="other")
    async with world.open(by_turn(says("ok")), others=[other], output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(10)])
        first = await kernel.spawn(world.program("p"), account="ann", engine="other")
        second = await kernel.spawn(world.program("p"), account="ann")
        for pid in (first, second):
            await world.until_state(kernel, pid, "STOPPED", "breaker")
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        await kernel.topup("ann", tokens=60)
        await soon(world, kernel, first, "STOPPED", "error")
        await soon(world, kernel, second, "EXITED")


async def test_a_stream_of_foreign_calls_does_not_overtake_who_waits_for_room(world: World) -> None:
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(2_000)])
        first = await kernel.hold("ann", 1_000, 500, key="first", **ASK)
        pid = await kernel.spawn(world.program("p", prose="word " * 700), account="ann")
        await world.until_state(kernel, pid, "WAITING", "quota")
        with pytest.raises(LimitError, match="processes wait for room already"):
            await kernel.hold("ann", 10, 20, key="second", **ASK)
        await kernel.settle(first.id, Usage(10, 0, 5))
        await soon(world, kernel, pid, "EXITED")
        await kernel.hold("ann", 10, 20, key="third", **ASK)


# ------------------------------------------------------------------------------------------- money


async def test_a_bill_for_a_call_that_was_to_cost_nothing_counts_in_its_window(world: World) -> None:
    """Only input has a price, none was told, so the hold was of no money; the bill is an overrun of the day."""
    home(world, "input = 1000\noutput = 0")
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [money(NANO, "day")])
        world.clock.advance(DAY_MS)
        ask: dict[str, Any] = {"engine": "scripted", "model": "scripted", "timeout_s": 60}
        hold = await kernel.hold("ann", 0, 100, key="one", **ask)
        assert (await kernel.settle(hold.id, Usage(5_000, 0, 10))).nano == 5 * NANO
        [limit] = (await kernel.account("ann")).limits
        assert (limit.used, limit.left) == (5 * NANO, 0)
        with pytest.raises(LimitError):
            await kernel.hold("ann", 1, 100, key="two", **ask)


async def test_the_currency_of_a_home_may_change_until_something_is_charged_in_it(tmp_path: Path) -> None:
    world = home(World(tmp_path), "")
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p")), 10)
    home(world, "", 'currency = "eur"')
    async with world.open(by_turn(says("ok"))) as kernel:
        assert (await kernel.account("home")).currency == "eur"


async def test_a_turn_that_was_interrupted_does_not_spend_the_wait_of_the_next(world: World) -> None:
    """Batch work waits for a cheaper hour once for each call: the call that was broken off was another one."""
    home(world, NIGHT)
    async with world.open(by_turn(says("ok"))) as kernel:
        midnight = -(-world.clock.now_ms() // DAY_MS) * DAY_MS
        world.clock.jump(midnight + 12 * HOUR_MS - world.clock.now_ms())
        pid = await kernel.spawn(world.program("p"), band="batch", conversation=True)
        await kernel.send(pid, "one")
        await world.until_state(kernel, pid, "WAITING", "timer")
        await kernel.signal(pid, Signal.INT)
        await world.until_state(kernel, pid, "WAITING", "message")
        await kernel.send(pid, "two")
        await soon(world, kernel, pid, "WAITING", "timer")


async def test_a_free_call_does_not_wait_behind_those_who_wait_for_money(world: World) -> None:
    home(world, PRICE)
    gate, free = Gate(spends=1), ScriptedEngine.of(by_turn(says("free")), name="free")
    async with world.open(gate, others=[free], output_tokens_max=100) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(NANO // 2)])
        holder = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, holder, "RUNNING")
        waiter = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, waiter, "WAITING", "quota")
        pid = await kernel.spawn(world.program("p"), account="ann", engine="free")
        await soon(world, kernel, pid, "EXITED")
        gate.opened.set()


async def test_a_top_up_is_no_promise_that_the_next_window_pays(world: World) -> None:
    """The call would fit into this day with its top-up, and not into a plain one: nothing resets for it."""
    async with world.open(by_turn(says("ok", 60)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(5, "day")])
        await kernel.topup("ann", tokens=70)
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker: the limit of account ann (75 tokens a day)")
        assert "resets at" not in (await kernel.outcome(pid)).reason


async def test_a_new_day_that_does_not_help_says_which_limit_is_short_now(world: World) -> None:
    async with world.open(by_turn(says("ok", 60)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(70, "day"), tokens(71, "month")])
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker: the limit of account ann (70 tokens a day)")
        world.clock.advance(DAY_MS)
        await soon(world, kernel, pid, "STOPPED", "breaker: the limit of account ann (71 tokens a month)")


async def test_a_process_without_money_goes_on_when_it_gets_a_program_that_costs_none(world: World) -> None:
    home(world, PRICE)
    free = ScriptedEngine.of(by_turn(says("free")), name="free")
    async with world.open(by_turn(says("ok")), others=[free]) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(1)])
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker")
        await kernel.exec(pid, world.program("q", "model: free/free"))
        await soon(world, kernel, pid, "EXITED")


HALF = "\ud800"


@pytest.mark.parametrize(
    "door",
    [
        lambda kernel: kernel.hold("home", 1, 20, key=HALF, **ASK),
        lambda kernel: kernel.hold(HALF, 1, 20, key="a", **ASK),
        lambda kernel: kernel.hold("home", 1, 20, engine=HALF, model="m", key="a", timeout_s=5),
        lambda kernel: kernel.hold("home", 1, 20, engine="e", model="m" * 10_000, key="a", timeout_s=5),
        lambda kernel: kernel.account(HALF),
        lambda kernel: kernel.account_add("ann", under=HALF),
        lambda kernel: kernel.budget_set(f"home/{HALF}", [tokens(5)]),
        lambda kernel: kernel.topup(HALF, tokens=5),
        lambda kernel: kernel.meter(account=HALF),
    ],
)
async def test_a_name_that_no_database_takes_is_refused_in_words(
    world: World, door: Callable[[Desk], Awaitable[object]]
) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        with pytest.raises(UsageError):
            await door(kernel)
        with pytest.raises(UsageError):
            await kernel.spawn(world.program("p"), account=HALF)


@pytest.mark.parametrize("sent", [True, False])
async def test_verify_finds_a_foreign_hold_that_would_never_end(world: World, sent: bool) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        hold = await kernel.hold("home", 10, 20, key="one", **ASK)
        if sent:
            await kernel.hold_sent(hold.id)
        assert reckon.verify(kernel.journal) == []
        [timer] = kernel.journal.rows("timer_due", 1 << 60, 10)
        await kernel.journal.commit(lambda tx: tx.run("timer_delete", *timer).rowcount, "damage")
        found = reckon.verify(kernel.journal)
        await kernel.journal.commit(lambda tx: timers.arm(tx, *timer), "mend")
        assert found == [f"hold {hold.id} of account 0 (home): open, and no time ends it"]


async def test_nobody_in_a_crowd_is_ended_because_the_backend_has_too_much_to_do(world: World) -> None:
    """It takes one call in ten seconds, and 429 is its answer to all others: everybody is served, in the end."""
    served_ms = [0]

    def answer(_: Request) -> Reply:
        if world.clock.now_ms() - served_ms[0] < 10_000:
            raise EngineError("too many", retryable=True, spent=Spent.NOTHING, throttled=True)
        served_ms[0] = world.clock.now_ms()
        return says("ok")

    async with world.open(answer) as kernel:
        pids = [await kernel.spawn(world.program("p")) for _ in range(20)]

        async def all_rest() -> bool:
            world.clock.advance(500)
            return not any(p.state in ("READY", "RUNNING", "WAITING") for p in await kernel.ps())

        await world.until(all_rest)
        assert [(await kernel.outcome(pid)).state for pid in pids] == ["EXITED"] * 20


@pytest.mark.parametrize("how", [{"throttled": True}, {"retry_after_s": 1.0}])
async def test_a_backend_that_refuses_for_ever_is_given_up(world: World, how: dict[str, Any]) -> None:
    def answer(_: Request) -> Reply:
        raise EngineError("too many", retryable=True, spent=Spent.NOTHING, **how)

    async with world.open(answer, refusals_max=9) as kernel:
        pid = await kernel.spawn(world.program("p"))

        async def stands() -> bool:
            world.clock.advance(60_000)
            return (await kernel.outcome(pid)).state == "STOPPED"

        await world.until(stands)
        assert (await kernel.outcome(pid)).reason == "error: too many (9 tries)"


async def test_the_same_call_has_the_same_key_however_its_account_is_written(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        first = await kernel.hold("", 10, 20, key="one", **ASK)
        assert await kernel.hold("home", 10, 20, key="one", **ASK) == first
        await kernel.hold("home", 10, 20, key="two", engine="a b", model="c", timeout_s=60)
        with pytest.raises(UsageError, match="another call's"):
            await kernel.hold("home", 10, 20, key="two", engine="a", model="b c", timeout_s=60)


async def test_a_call_that_never_went_out_counts_in_no_minute(world: World) -> None:
    """Killed in the very commit of its intent: the backend, which takes one call a minute, has heard nothing of it."""
    slow = ScriptedEngine.of(by_turn(says("ok")), name="slow")
    slow.rpm = 1
    async with world.open(by_turn(says("ok")), others=[slow]) as kernel:
        killed = await kernel.spawn(world.program("p"), engine="slow")
        await kernel.signal(killed, Signal.KILL)
        assert slow.calls == 0
        pid = await kernel.spawn(world.program("p"), engine="slow")
        await soon(world, kernel, pid, "EXITED")


async def test_a_count_that_no_call_can_have_starves_nobody(world: World) -> None:
    """An engine that once says nonsense: its caller would be served when all others had as much."""
    blocker, gate = asyncio.Event(), asyncio.Event()
    names = {"first": 1 << 60, "second": 5}

    async def answer(request: Request) -> Reply:
        name = request.messages[0].text
        await asyncio.wait_for((blocker if name == "blocker" else gate).wait(), 20) if name not in names else None
        return says("ok", names.get(name, 3_000))

    async with world.open(answer, slots=2) as kernel:
        for account in ("ann", "bob"):
            await kernel.account_add(account)
        programs = {name: world.program(name, prose=name) for name in ("blocker", "first", "second", "bob")}
        held = await kernel.spawn(programs["blocker"])
        await kernel.wait(await kernel.spawn(programs["first"], account="ann"), 10)
        bobs = [await kernel.spawn(programs["bob"], account="bob") for _ in range(20)]
        second = await kernel.spawn(programs["second"], account="ann")
        gate.set()
        for pid in [*bobs, second]:
            await soon(world, kernel, pid, "EXITED")
        blocker.set()
        await kernel.wait(held, 10)
        order = [request.messages[0].text for request in world.asked]
        assert order.index("second") < len(order) - 5
