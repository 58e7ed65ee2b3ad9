"""Who waits for room under a limit is woken when there is some, and told when there never will be."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.kernel.world import World, call, calls, says, turn_of

import mains
from mains import Signal
from mains.kernel import ledger
from mains.kernel.calls import share_room
from mains.kernel.event import Refused, Spawned
from mains.kernel.journal import Journal
from mains.kernel.ledger import Hold, Label
from mains.kernel.limits import HOME, Refusal
from mains.kernel.ports import Reply, Request, Usage
from mains.kernel.process import Process
from mains.kernel.tx import Tx


class Family:
    """A parent with a budget and children that the test lets go one by one; the first one takes all the room."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gates: dict[str, asyncio.Event] = {name: asyncio.Event() for name in "abc"}
        self.usage = Usage(20, 0, 5)
        self.bug = False
        self.asks = False
        world.program("child", "inputs: {name: text}\nmax_tokens: 5000\ntools: [ask]", "Child {{name}}.")

    def path(self) -> Path:
        return self.world.program("p", "tools: [spawn(child), wait]\nmax_tokens: 100", "Parent.")

    async def answer(self, request: Request) -> Reply:
        if request.messages[0].text == "Parent.":
            spawn = [call("spawn", program="child", inputs={"name": name}) for name in "abc"]
            return (calls(*spawn, call("wait")), says("done"))[turn_of(request)]
        name = request.messages[0].text.split()[-1][0]
        await asyncio.wait_for(self.gates[name].wait(), 10)
        if self.bug and name == "a":
            raise ZeroDivisionError("a bug")
        if self.asks and turn_of(request) == 0:
            return calls(call("ask", question="and now?"))
        return Reply(name, usage=self.usage)


async def test_a_paused_waiter_does_not_eat_the_wake_of_the_next(world: World) -> None:
    family = Family(world)
    family.asks = True
    async with world.open(family.answer) as kernel:
        await kernel.spawn(family.path(), budget=4_000)
        for pid in (3, 4):
            await world.until_state(kernel, pid, "WAITING", "quota")
        await kernel.signal(3, Signal.STOP)
        for gate in family.gates.values():
            gate.set()
        await world.until_state(kernel, 2, "WAITING", "human")
        await world.until_state(kernel, 4, "WAITING", "human")
        await kernel.signal(3, Signal.CONT)
        for pid in (2, 3, 4):
            await world.until_state(kernel, pid, "WAITING", "human")
            await kernel.answer(pid, "end")
        assert (await kernel.wait(1, 10)).result == "done"


async def test_who_waits_for_room_that_a_bug_has_spent_learns_it(world: World) -> None:
    family = Family(world)
    family.bug = True
    async with world.open(family.answer) as kernel:
        await kernel.spawn(family.path(), budget=4_000)
        for pid in (3, 4):
            await world.until_state(kernel, pid, "WAITING", "quota")
        family.gates["a"].set()
        await world.until_state(kernel, 2, "STOPPED", "error")
        for pid in (3, 4):
            await world.until_state(kernel, pid, "STOPPED", "breaker")


async def test_one_who_is_killed_while_it_waits_leaves_its_place_to_the_next(world: World) -> None:
    family = Family(world)
    async with world.open(family.answer) as kernel:
        await kernel.spawn(family.path(), budget=4_000)
        for pid in (3, 4):
            await world.until_state(kernel, pid, "WAITING", "quota")
        await kernel.signal(3, Signal.KILL)
        for gate in family.gates.values():
            gate.set()
        assert (await kernel.wait(4, 10)).result == "c"
        assert (await kernel.wait(1, 10)).result == "done"


async def test_a_waiter_that_is_woken_at_a_dead_engine_does_not_hold_up_the_rest(world: World) -> None:
    """The room that comes free is offered on until somebody takes it or nobody is left."""
    family = Family(world)
    async with world.open(family.answer, slots=2) as kernel:
        await kernel.spawn(family.path(), budget=4_000)
        for pid in (3, 4):
            await world.until_state(kernel, pid, "WAITING", "quota")
        for name in "acb":
            family.gates[name].set()
        assert (await kernel.wait(1, 10)).result == "done"


async def test_one_who_is_short_under_two_limits_is_woken_by_the_second_too(tmp_path: Path) -> None:
    """The room it asked for comes free, but another limit above it is spent by an overrun; then that one is free."""
    journal = Journal(tmp_path / "mains.db", mains.Settings(), lambda: 0, lambda batch: None)
    inner, outer, first, other, third = 1, 2, 3, 4, 5

    def hold(tx: Tx, accounts: tuple[int, ...], tokens: int) -> int:
        taken = ledger.take(tx, accounts, 0, tokens, 1, Label("e"))
        assert isinstance(taken, Hold)
        return taken.id

    def play(tx: Tx) -> Process | None:
        ledger.open_home(tx)
        for account, parent, limit in (
            (outer, HOME, 1_000), (inner, outer, 500), (first, inner, None), (other, outer, None), (third, outer, None),
        ):  # fmt: skip
            ledger.open_account(tx, account, parent, limit)
        under_inner, under_outer = (inner, outer, HOME), (outer, HOME)
        of_first = hold(tx, (first, *under_inner), 500)
        of_other = hold(tx, (other, *under_outer), 100)
        of_third = hold(tx, (third, *under_outer), 300)
        ledger.open_account(tx, 6, inner, None)
        waiter = tx.happen(None, Spawned(process=_process(6, (6, *under_inner)), context=()))
        refused = ledger.take(tx, waiter.accounts, 400, 100, 16, Label("e"))
        assert isinstance(refused, Refusal)
        assert refused.limit.account == inner
        tx.happen(waiter, Refused(quota=inner, wanted=refused.wanted, detail=""))

        ledger.post(tx, (other, *under_outer), of_other, Usage(450))  # 350 more than it held
        share_room(tx, (other, *under_outer))
        ledger.void(tx, (first, *under_inner), of_first)
        share_room(tx, (first, *under_inner))
        ledger.void(tx, (third, *under_outer), of_third)
        share_room(tx, (third, *under_outer))
        return tx.process(6)

    woken = await journal.commit(play, "play")
    await journal.close()
    assert woken is not None
    assert woken.quota == -1, "there is room for it under every limit, and nobody told it"


def _process(pid: int, accounts: tuple[int, ...]) -> Process:
    return Process(
        pid=pid, name="p", program="", tree="", inputs="", tools="", accounts=accounts, output_tokens_max=100,
        created_ms=1,
    )  # fmt: skip
