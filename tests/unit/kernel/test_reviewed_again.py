"""What a second hostile reading of ledger, quota and scheduler found: each test failed once."""

from __future__ import annotations

from tests.unit.kernel.test_reviewed_ledger import Gate, tokens
from tests.unit.kernel.world import World, by_turn, call, calls, says

from mains.kernel import reckon
from mains.kernel.ports import Reply, Request, Signal


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
