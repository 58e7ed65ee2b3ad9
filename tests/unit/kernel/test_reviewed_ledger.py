"""What a hostile reading of the ledger found: each test failed once."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.kernel.test_money import NANO, NIGHT, home
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel import reckon, retention
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk
from mains.kernel.limits import NAMED
from mains.kernel.ports import Reply, Request, Signal, Usage

ASK: dict[str, Any] = {"engine": "gate", "model": "m", "timeout_s": 60}
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
ANN_TODAY = (
    NAMED,
    "tokens",
    "day",
    1_799_971_200_000,
)  # the first named account, on the day on which the test clock starts


def tokens(most: int | None, window: str = "total") -> Budget:
    return Budget("tokens", window, most)  # type: ignore[arg-type]


async def soon(world: World, kernel: Desk, pid: int, state: str, reason: str = "") -> None:
    """As `until_state`, within some seconds: what is looked for never comes when a wake-up was lost."""
    async with asyncio.timeout(5):
        await world.until_state(kernel, pid, state, reason)


class Gate:
    """An engine's answer that comes when it is opened; `spends` tokens of output."""

    def __init__(self, spends: int = 5) -> None:
        self.opened = asyncio.Event()
        self.spends = spends

    async def __call__(self, _: Request) -> Reply:
        await asyncio.wait_for(self.opened.wait(), 20)
        return says("ok", self.spends)


# ------------------------------------------------------------------------------------------- calls of others


async def test_usage_that_comes_after_a_hold_was_released_is_an_adjustment(world: World) -> None:
    """The gateway never said `hold_sent`; the call went out all the same, and its usage comes late."""
    async with world.open(by_turn(says("ok"))) as kernel:
        hold = await kernel.hold("home", 50, 100, key="one", **ASK)
        world.clock.advance(61_000)
        await world.until(lambda: _none_held(kernel, "home"))
        assert (await kernel.settle(hold.id, Usage(50, 0, 20))).tokens == 70
        assert (await kernel.account("home")).posted_tokens + (await kernel.account("home")).overrun_tokens == 70


async def test_usage_after_void_does_not_end_the_kernel(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        hold = await kernel.hold("home", 50, 100, key="one", **ASK)
        await kernel.void(hold.id)
        with contextlib.suppress(UsageError):
            await kernel.settle(hold.id, Usage(50, 0, 20))
        await kernel.account_add("ann")


async def test_usage_below_zero_mints_no_room(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(200)])
        hold = await kernel.hold("ann", 50, 100, key="one", **ASK)
        try:
            await kernel.settle(hold.id, Usage(-1_000, 0, 0))
        except UsageError:
            return
        assert (await kernel.account("ann")).limits[0].left <= 200


async def test_a_key_with_another_size_of_input_is_another_call(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.hold("home", 10, 50, key="one", **ASK)
        with pytest.raises(UsageError, match="another call's"):
            await kernel.hold("home", 20, 50, key="one", **ASK)


async def test_a_hold_of_absurd_size_is_refused_in_words(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        for number in range(2):
            with pytest.raises((UsageError, LimitError)):
                await kernel.hold("home", 1 << 62, 100, key=str(number), **ASK)


async def test_a_foreign_call_of_a_program_is_on_that_program_s_meter(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.budget_set("home/p", [tokens(1_000)])
        hold = await kernel.hold("home/p", 50, 100, key="one", **ASK)
        await kernel.settle(hold.id, Usage(50, 0, 20))
        assert (await kernel.account("home/p")).posted_tokens == 70
        assert [row.output_tokens for row in await kernel.meter(account="home/p")] == [20]


async def test_a_foreign_call_is_charged_at_the_hour_at_which_it_was_sent(world: World) -> None:
    """Held at 05:59 at the night's price, sent at 06:01 at the day's: the design says, in force at dispatch."""
    home(world, NIGHT)
    async with world.open(by_turn(says("ok"))) as kernel:
        midnight = -(-world.clock.now_ms() // DAY_MS) * DAY_MS
        world.clock.advance(midnight + 6 * HOUR_MS - 60_000 - world.clock.now_ms())
        ask = {"engine": "scripted", "model": "scripted", "timeout_s": 300}
        hold = await kernel.hold("home", 10, 100, key="one", **ask)  # type: ignore[arg-type]
        world.clock.advance(120_000)
        await kernel.hold_sent(hold.id)
        assert (await kernel.settle(hold.id, Usage(10, 0, 10))).nano == (10 + 40) * NANO // 1_000


async def test_a_month_that_was_stated_does_not_change(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        hold = await kernel.hold("ann", 50, 100, key="one", **ASK)
        await kernel.hold_sent(hold.id)
        await kernel.settle(hold.id, None)
        before = await kernel.statement("ann", "2027-01")
        world.clock.advance(31 * DAY_MS)
        await kernel.settle(hold.id, Usage(50, 0, 10))
        assert (await kernel.statement("ann", "2027-01")) == before, "an adjustment, never an edit"


async def test_the_reason_names_foreign_holders_too(world: World) -> None:
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(100)])
        await kernel.hold("ann", 10, 90, key="one", **ASK)
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "WAITING", "quota")
        assert "; held by " in (await kernel.outcome(pid)).reason


async def _none_held(kernel: Desk, account: str) -> bool:
    return (await kernel.account(account)).held_tokens == 0


# ------------------------------------------------------------------------------------------- lost wake-ups


async def test_who_waits_for_a_foreign_call_is_told_when_the_kernel_comes_back(tmp_path: Path) -> None:
    """Its hold is posted whole at boot: nobody holds anything any more, and the waiter waits for ever."""
    world = World(tmp_path)
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(100)])
        hold = await kernel.hold("ann", 10, 90, key="one", **ASK)
        await kernel.hold_sent(hold.id)
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "WAITING", "quota")
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        assert (await kernel.account("ann")).held_tokens == 0
        await soon(world, kernel, pid, "STOPPED", "breaker")


async def test_who_waits_for_one_that_was_pausing_is_told_when_the_kernel_comes_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with world.open(Gate(), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(70)])
        first = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, first, "RUNNING")
        second = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, second, "WAITING", "quota")
        await kernel.signal(first, Signal.STOP)
    async with world.open(by_turn(says("ok")), output_tokens_max=50) as kernel:
        await world.until_state(kernel, first, "STOPPED", "paused")
        assert (await kernel.account("ann")).held_tokens == 0
        await soon(world, kernel, second, "STOPPED", "breaker")


async def test_room_goes_on_from_batch_work_that_then_waits_for_a_cheaper_hour(world: World) -> None:
    """Woken for the room, it is put off (Deferred) and passes the room to nobody."""
    home(world, NIGHT)
    gate = Gate(spends=1)
    async with world.open(gate, output_tokens_max=50) as kernel:
        midnight = -(-world.clock.now_ms() // DAY_MS) * DAY_MS
        world.clock.advance(midnight + 6 * HOUR_MS - 60_000 - world.clock.now_ms())  # the last minute of the night
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(70)])
        holder = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, holder, "RUNNING")
        batches = [await kernel.spawn(world.program("p"), account="ann", band="batch") for _ in range(2)]
        for batch in batches:  # one that ends gives its room on twice: when it is settled, and when it ends
            await world.until_state(kernel, batch, "WAITING", "quota")
        last = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, last, "WAITING", "quota")
        world.clock.advance(120_000)  # the day has begun
        gate.opened.set()
        await world.until_state(kernel, holder, "EXITED")
        for batch in batches:
            await world.until_state(kernel, batch, "WAITING", "timer")
        await soon(world, kernel, last, "EXITED")


async def test_room_goes_on_from_one_whose_price_is_not_known(world: World) -> None:
    """Woken for the room, it stops (error: no known price) and passes the room to nobody."""
    home(world, "")
    remote = '[engines.scripted]\nkind = "openai"\nurl = "https://models.invalid/v1"\nmodel = "nobody-knows"\n'
    (world.folder / "home" / "mains.toml").write_text(remote)
    gate = Gate(spends=1)
    async with world.open(gate, output_tokens_max=50) as kernel:
        for name in ("ann", "bob"):
            await kernel.account_add(name, under="" if name == "ann" else "ann", unknown_price="")
        await kernel.account_add("eve", under="ann", unknown_price="allow")
        await kernel.budget_set("ann", [tokens(70)])
        holder = await kernel.spawn(world.program("p"), account="eve")
        await world.until_state(kernel, holder, "RUNNING")
        second = await kernel.spawn(world.program("p"), account="bob")
        await world.until_state(kernel, second, "WAITING", "quota")
        last = await kernel.spawn(world.program("p"), account="eve")
        await world.until_state(kernel, last, "WAITING", "quota")
        await kernel.budget_set("bob", [Budget("money", "total", NANO)])
        gate.opened.set()
        await world.until_state(kernel, holder, "EXITED")
        await soon(world, kernel, second, "STOPPED", "error")
        await soon(world, kernel, last, "EXITED")


async def test_a_top_up_wakes_as_many_as_it_has_room_for(world: World) -> None:
    async with world.open(by_turn(says("ok", 40)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(10)])
        pids = [await kernel.spawn(world.program("p"), account="ann") for _ in range(20)]
        for pid in pids:
            await world.until_state(kernel, pid, "STOPPED", "breaker")
        before = kernel.journal.rows("event_last")[0][0]
        await kernel.topup("ann", tokens=60)
        await world.until_state(kernel, pids[0], "EXITED")
        for pid in pids[1:]:
            await world.until_state(kernel, pid, "STOPPED", "breaker")
        woken = [row for row in kernel.journal.rows("event_after", before, 10_000) if row[3] == "woken"]
        assert len(woken) <= 3, f"{len(woken)} were woken for room for one"


# ------------------------------------------------------------------------------------------- sums and verify


async def test_a_ledger_is_sound_after_a_top_up_and_a_removal(world: World) -> None:
    """What a removed process had counts from the start, when a smaller limit held: a hold seems above it."""
    async with world.open(by_turn(says("ok", 20)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(70)])
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        await kernel.topup("ann", tokens=10_000)
        pids = [await kernel.spawn(world.program("p"), account="ann") for _ in range(3)]
        for pid in pids:
            await kernel.wait(pid, 10)
        await kernel.remove(pids)
        assert reckon.verify(kernel.journal) == []


async def test_a_ledger_is_sound_after_the_numbers_of_entries_were_given_again(world: World) -> None:
    """The newest entries are erased and their numbers used again: a limit's `entry` names another one then."""
    async with world.open(by_turn(says("ok", 5)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(80)])
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        bob = await kernel.spawn(world.program("p"))
        await kernel.wait(bob, 10)
        await kernel.budget_set("ann", [tokens(10_000)])
        await kernel.remove([bob])
        prose = "word " * 400
        await kernel.wait(await kernel.spawn(world.program("q", prose=prose), account="ann"), 10)
        assert reckon.verify(kernel.journal) == []


async def test_a_limit_that_is_set_after_midnight_while_a_call_of_yesterday_is_out(world: World) -> None:
    gate = Gate()
    async with world.open(gate) as kernel:
        await kernel.account_add("ann", zone="UTC")
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "RUNNING")
        midnight = -(-world.clock.now_ms() // DAY_MS) * DAY_MS
        world.clock.jump(midnight + 1_000 - world.clock.now_ms())
        await kernel.budget_set("ann", [tokens(10_000, "day")])
        gate.opened.set()
        await world.until_state(kernel, pid, "EXITED")
        assert reckon.verify(kernel.journal) == []


async def test_a_limit_that_is_set_while_a_process_is_being_erased_counts_it(world: World) -> None:
    """Removed, and its events not erased yet: neither its holds nor the tally are counted."""
    async with world.open(by_turn(says("ok", 40))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        pid = await kernel.spawn(world.program("p"), account="ann")
        await kernel.wait(pid, 10)
        await kernel.journal.commit(lambda tx: retention.remove(tx, [pid]), "remove")
        view = await kernel.budget_set("ann", [tokens(100, "day")])
        assert view.limits[0].used == 50


async def test_verify_still_looks_at_windows_after_a_removal(world: World) -> None:
    async with world.open(by_turn(says("ok", 5))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(1_000, "day")])
        pids = [await kernel.spawn(world.program("p"), account="ann") for _ in range(2)]
        for pid in pids:
            await kernel.wait(pid, 10)
        await kernel.remove(pids[:1])
        await kernel.journal.commit(lambda tx: tx.one("used_move", *ANN_TODAY, 0, 500, 0), "damage")
        found = reckon.verify(kernel.journal)
        await kernel.journal.commit(lambda tx: tx.one("used_move", *ANN_TODAY, 0, -500, 0), "mend")
        assert found


# ------------------------------------------------------------------------------------------- limits and words


async def test_a_limit_that_is_raised_is_warned_of_again(world: World) -> None:
    async with world.open(by_turn(says("ok", 30))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(42, "day")])
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        await kernel.budget_set("ann", [tokens(150, "day")])
        for _ in range(2):
            await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        rows = [msgspec.json.decode(row[4]) for row in kernel.journal.rows("event_of", 0, 0, 1_000)]
        assert [(r["percent"], r["most"]) for r in rows if r["kind"] == "warned"] == [(95, 42), (50, 150), (80, 150)]


async def test_a_look_at_an_account_makes_none(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        before = await kernel.accounts()
        for door in (lambda: kernel.account("home/typo"), lambda: kernel.meter(account="home/typo")):
            try:
                await door()
            except NotFoundError:
                continue
        assert await kernel.accounts() == before


async def test_a_fork_has_cost_nothing_yet(world: World) -> None:
    async with home(world).open(by_turn(says("ok", 20))) as kernel:
        pid = await kernel.spawn(world.program("p"))
        await kernel.wait(pid, 10)
        fork = await kernel.fork(pid)
        await kernel.wait(fork, 10)
        assert (await kernel.show(fork))["cost_nano"] == (await kernel.account(str(fork))).posted_nano


async def test_a_big_call_is_not_overtaken_for_ever(world: World) -> None:
    """New holds are granted without a look at who waits: a stream of small ones starves a large one."""
    gates: list[asyncio.Event] = []

    async def answer(request: Request) -> Reply:
        if len(request.messages[0].text) > 1_000:
            return says("big", 5)
        gates.append(gate := asyncio.Event())
        await asyncio.wait_for(gate.wait(), 20)
        return says("small", 1)

    async with world.open(answer, slots=32, output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(2_000)])
        small, big = world.program("small"), world.program("big", prose="word " * 1_000)
        pids = [await kernel.spawn(small, account="ann") for _ in range(8)]
        await world.until(lambda: _at_least(gates, 8))
        waiting = await kernel.spawn(big, account="ann")
        await world.until_state(kernel, waiting, "WAITING", "quota")
        for turn in range(8):  # one ends, another comes: it must not have the room that is kept together
            pids.append(await kernel.spawn(small, account="ann"))
            await world.until_state(kernel, pids[-1], "WAITING", "quota")
            gates[turn].set()
            await world.until(partial(_ended, kernel, turn + 1))
        await soon(world, kernel, waiting, "EXITED")
        await world.until(partial(_at_least, gates, 16))
        for gate in gates:
            gate.set()
        for pid in pids:
            await world.until_state(kernel, pid, "EXITED")


async def _ended(kernel: Desk, count: int) -> bool:
    return sum(p.state == "EXITED" for p in await kernel.ps(every=True)) >= count


async def _at_least(found: list[asyncio.Event], count: int) -> bool:
    return len(found) >= count


async def test_batch_work_that_cannot_wait_long_enough_goes_at_once(world: World) -> None:
    """The cheaper hour is ten hours away, it waits five and pays the same price: it was late for nothing."""
    home(world, NIGHT)
    async with world.open(by_turn(says("ok", 10)), batch_wait_s=5 * 3_600) as kernel:
        midnight = -(-world.clock.now_ms() // DAY_MS) * DAY_MS
        world.clock.jump(midnight + 12 * HOUR_MS - world.clock.now_ms())
        pid = await kernel.spawn(world.program("p"), band="batch")
        await soon(world, kernel, pid, "EXITED")


async def test_a_limit_that_not_even_a_whole_window_pays_promises_no_reset(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(5, "day")])
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker")
        assert "resets at" not in (await kernel.outcome(pid)).reason


async def test_show_tells_the_budget_that_holds(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        pid = await kernel.spawn(world.program("p"), budget=20)
        await world.until_state(kernel, pid, "STOPPED", "breaker")
        await kernel.topup(str(pid), tokens=1_000)
        await kernel.wait(pid, 10)
        assert (await kernel.show(pid))["budget"] == 1_020


async def test_a_number_that_no_pid_can_be_is_not_found(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        with pytest.raises(NotFoundError):
            await kernel.account("9" * 5_000)


async def test_a_child_for_whose_program_there_is_no_account_is_an_error_of_the_call(world: World) -> None:
    """At accounts_max the reply of the parent was undone, it stopped with an error, and paid for the reply whole."""
    world.program("child", prose="Child.")

    def answer(request: Request) -> Reply:
        return by_turn(calls(call("spawn", program="child")), says("end"))(request)  # type: ignore[return-value]

    async with world.open(answer, accounts_max=1) as kernel:
        pid = await kernel.spawn(world.program("parent", "tools: [spawn(child), wait]", "Parent."))
        assert (await kernel.wait(pid, 10)).state == "EXITED"


async def test_what_an_engine_counts_is_bounded(world: World) -> None:
    """A count beyond 64 bits was an error of SQLite in one result; near it, nobody could be charged again."""
    async with world.open(by_turn(Reply("ok", usage=Usage(10, 0, (1 << 63) - 20)))) as kernel:
        first = await kernel.spawn(world.program("p"))
        await kernel.wait(first, 10)
        second = await kernel.spawn(world.program("p"))
        assert (await kernel.wait(second, 10)).state == "EXITED"
