"""What a hostile review of schedules, conversations and exec found, each as a test of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.unit.kernel.test_schedules import DAY, MINUTE, NIGHTLY, done, ms, slots_of
from tests.unit.kernel.world import Answer, World, call, calls, says

import mains
from mains.errors import NotFoundError, UsageError
from mains.kernel import audit, orders, retention, views
from mains.kernel.birth import Birth
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Signal
from mains.kernel.process import Process
from mains.program import load_tree
from mains.testing import ScriptedEngine


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.clock.advance(ms("2026-11-24T12:00") - made.clock.now_ms())
    return made


def echo(request: Request) -> Reply:
    return says(f"you said {request.messages[-1].text}")


async def slots_are(world: World, kernel: Desk, pid: int, count: int) -> list[dict[str, Any]]:
    """Wait until so many slots are over; all of them."""

    async def there() -> bool:
        return sum(int(slot.get("count", 1)) for slot in await slots_of(kernel, pid)) >= count

    await world.until(there)
    return await slots_of(kernel, pid)


async def test_a_key_that_somebody_took_skips_the_slot(world: World) -> None:
    """The kernel halted at each boot: the run's key was not free, and nobody had foreseen that."""
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""))
        taker = await kernel.spawn(world.program("other"), key=f"{pid}@2026-11-25T07:00:00+01:00")
        world.clock.advance(DAY)
        [slot] = await slots_are(world, kernel, pid, 1)
        assert "run" not in slot and f"process {taker}" in slot["reason"]
        world.clock.advance(DAY)
        assert "run" in (await slots_are(world, kernel, pid, 2))[-1]


async def test_a_restart_after_the_clock_went_back_runs_no_slot_twice(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""))
        world.clock.advance(DAY)
        [first] = await slots_are(world, kernel, pid, 1)
        world.clock.advance(-DAY)
        world.program("nightly", NIGHTLY % "", prose="Do it better.")
        assert await kernel.restart(pid)
        world.clock.advance(DAY)
        again = (await slots_are(world, kernel, pid, 2))[-1]
        assert "run" not in again and f"process {first['run']}" in again["reason"]


async def test_a_clock_that_goes_back_while_slots_wait_for_a_run_loses_none(world: World) -> None:
    gate = asyncio.Event()

    async def answer(_: Request) -> Reply:
        await gate.wait()
        return says("done")

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ", catch_up: all"))
        world.clock.advance(DAY)
        await slots_are(world, kernel, pid, 1)
        world.clock.advance(DAY)  # this slot waits for the end of the run
        await world.until_state(kernel, pid + 1, "RUNNING")
        await world.until(lambda: _no_timer(kernel))
        world.clock.advance(-DAY)
        gate.set()
        await kernel.wait(pid + 1, 10)
        assert kernel.busy()
        world.clock.advance(2 * DAY)
        assert all("run" in slot for slot in await slots_are(world, kernel, pid, 3))


async def _no_timer(kernel: Desk) -> bool:
    return not kernel.journal.rows("timer_next")


async def test_many_missed_slots_beside_a_run_that_is_stuck(world: World) -> None:
    front = "schedule: {cron: '* * * * *', timezone: UTC, overlap: allow}\ntools: ask"
    async with world.open(lambda _: calls(call("ask", question="?"))) as kernel:
        pid = await kernel.spawn(world.program("often", front))
        world.clock.advance(MINUTE)
        await world.until_state(kernel, pid + 1, "WAITING", "human")
        world.clock.advance(20_001 * MINUTE)
        await slots_are(world, kernel, pid, 20_002)
        await world.until_state(kernel, pid + 2, "WAITING", "human")


async def test_runs_that_never_end_are_bounded(world: World) -> None:
    front = NIGHTLY % ", overlap: allow" + "\ntools: ask"
    async with world.open(lambda _: calls(call("ask", question="?")), children_max=2) as kernel:
        pid = await kernel.spawn(world.program("nightly", front))
        for n in range(1, 5):
            world.clock.advance(DAY)
            await slots_are(world, kernel, pid, n)
        slots = await slots_of(kernel, pid)
        assert ["run" in slot for slot in slots] == [True, True, False, False]
        assert "children_max" in slots[-1]["reason"]
        await kernel.signal(pid + 1, Signal.KILL)
        world.clock.advance(DAY)
        assert "run" in (await slots_are(world, kernel, pid, 5))[-1]


async def test_a_run_that_stopped_is_restarted(world: World) -> None:
    """It has no times of its own, though its program has: that was refused."""

    def answer(request: Request) -> Reply:
        if request.messages[0].text != "Better.":
            raise ValueError("a bug")
        return says("mended")

    async with world.open(answer) as kernel:
        program = world.program("nightly", NIGHTLY % "")
        now = await kernel.spawn(program, now=True)
        pid = await kernel.spawn(program)
        world.clock.advance(DAY)
        await slots_are(world, kernel, pid, 1)
        world.program("nightly", NIGHTLY % "", prose="Better.")
        for each in (now, pid + 1):
            await world.until_state(kernel, each, "STOPPED", "error")
            assert await kernel.restart(each)
            assert (await kernel.wait(each, 10)).result == "mended"


async def test_int_as_the_answer_comes_in_leaves_the_mail_unread(world: World) -> None:
    """The next turn was begun and cut off: its tokens were spent and the message was never answered."""
    kernel: Desk
    signals: list[asyncio.Task[list[int]]] = []

    async def answer(request: Request) -> Reply:
        if request.messages[-1].text == "first":
            await kernel.send(pid, "second")
            signals.append(asyncio.create_task(kernel.signal(pid, Signal.INT)))
            await asyncio.sleep(0)  # the signal is given now, and both are committed together
        return echo(request)

    async with world.open(answer) as kernel:
        pid = await kernel.spawn(world.program("talker"), conversation=True)
        await kernel.send(pid, "first")
        await world.until_state(kernel, pid, "WAITING", "message")
        assert await signals[0] == [pid]
        assert ((await kernel.show(pid))["unread"], len(world.asked)) == (1, 1)
        await kernel.send(pid, "third")
        await world.until_state(kernel, pid, "WAITING", "message")
        assert [m.text for m in world.asked[-1].messages[1:]] == ["first", "you said first", "second", "third"]


async def test_a_full_mailbox_does_not_shut_a_conversation_for_ever(world: World) -> None:
    async with world.open(echo, mailbox_messages_max=2) as kernel:
        pid = await kernel.spawn(world.program("talker"), conversation=True, paused=True)
        for text in ("one", "two"):
            await kernel.send(pid, text)
        assert await kernel.signal(pid, Signal.INT) == [pid]
        await kernel.signal(pid, Signal.CONT)
        await world.until_state(kernel, pid, "WAITING", "message")
        await kernel.send(pid, "three")
        await world.until_state(kernel, pid, "WAITING", "message")
        assert [m.text for m in world.asked[-1].messages[1:]] == ["one", "two", "three"]


async def test_a_conversation_whose_engine_is_gone_rests(world: World) -> None:
    """It turned for ever: the message that nothing could read woke it again and again."""
    other = ScriptedEngine.of(echo, name="b", slots=1)
    async with world.open(echo, others=[other]) as kernel:
        pid = await kernel.spawn(world.program("talker", "model: b"), conversation=True)
    async with world.open(echo) as kernel:
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "WAITING", "message: ")
        events = len(await kernel.history(pid))
        for _ in range(200):
            await asyncio.sleep(0)
        assert (await kernel.outcome(pid)).state == "WAITING"
        assert len(await kernel.history(pid)) == events
    async with world.open(echo, others=[ScriptedEngine.of(echo, name="b", slots=1)]) as kernel:
        await kernel.send(pid, "there?")
        await world.until_state(kernel, pid, "WAITING", "message")
        assert (await kernel.show(pid))["messages"][-1]["text"] == "you said there?"


async def test_a_planned_exec_saves_one_whose_engine_is_gone(world: World) -> None:
    tools = "tools: sleep"
    other = ScriptedEngine.of(lambda _: calls(call("sleep", seconds=60)), name="b", slots=1)
    async with world.open(done, others=[other]) as kernel:
        pid = await kernel.spawn(world.program("sleeper", f"model: b\n{tools}"))
        await world.until_state(kernel, pid, "WAITING", "timer")
        world.program("sleeper", tools)
        assert await kernel.restart(pid)
    async with world.open(done) as kernel:
        world.clock.advance(MINUTE)
        assert (await kernel.wait(pid, 10)).result == "done"


async def test_int_keeps_the_reason_of_one_that_stopped(world: World) -> None:
    async with world.open(echo) as kernel:
        pid = await kernel.spawn(world.program("talker"), conversation=True, budget=1)
        await kernel.send(pid, "hello")
        await world.until_state(kernel, pid, "STOPPED", "breaker: the limit of process")
        assert await kernel.signal(pid, Signal.INT) == [pid]
        assert (await kernel.outcome(pid)).reason.startswith("breaker: the limit of process")


async def test_int_to_a_group_is_for_its_conversations(world: World) -> None:
    """Children have the group of who spawned them, so that it was refused as soon as there was one."""
    async with world.open(lambda _: calls(call("ask", question="?"))) as kernel:
        program = world.program("asker", "tools: ask")
        worker = await kernel.spawn(program, group="team")
        with pytest.raises(UsageError, match=f"process {worker} is no conversation"):
            await kernel.signal_group("team", Signal.INT)
        talker = await kernel.spawn(program, {"prompt": "go"}, group="team", conversation=True)
        await world.until_state(kernel, talker, "WAITING", "human")
        assert await kernel.signal_group("team", Signal.INT) == [talker]
        await world.until_state(kernel, worker, "WAITING", "human")


async def test_slots_that_wait_are_not_lost_in_silence_by_a_restart(world: World) -> None:
    front = NIGHTLY % ", catch_up: all" + "\ntools: ask"
    async with world.open(lambda _: calls(call("ask", question="?"))) as kernel:
        pid = await kernel.spawn(world.program("nightly", front))
        world.clock.advance(DAY)
        await world.until_state(kernel, pid + 1, "WAITING", "human")
        world.clock.advance(2 * DAY)  # these wait for the end of that run
        await world.until(lambda: _no_timer(kernel))
        world.program("nightly", front, prose="Better.")
        assert await kernel.restart(pid)
        slots = await slots_of(kernel, pid)
        assert len(slots) == 3 and all("another program" in slot["reason"] for slot in slots[1:])


async def test_who_waits_is_told_the_result_though_it_is_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("p"))
        await kernel.wait(pid, 10)
        stuck, gone = views.stuck, list[Any]()

        def removed_meanwhile(*args: Any) -> str:
            """The pages go between the look at the process and that at its result."""
            with contextlib.closing(sqlite3.connect(world.folder / "home" / "mains.db")) as other, other:
                gone.extend(other.execute("DELETE FROM page RETURNING *").fetchall())
            return stuck(*args)

        monkeypatch.setattr(views, "stuck", removed_meanwhile)
        assert (await kernel.wait(pid, 60)).result == "done"
        monkeypatch.undo()
        with contextlib.closing(sqlite3.connect(world.folder / "home" / "mains.db")) as other, other:
            other.executemany(f"INSERT INTO page VALUES ({', '.join('?' * len(gone[0]))})", gone)
        await kernel.remove([pid])
        with pytest.raises(NotFoundError, match=f"no process {pid}"):
            await kernel.wait(pid, 10)


async def test_a_process_stands_in_the_lane_of_its_engine_only(world: World) -> None:
    """Stopped, replaced and resumed in one commit, it stayed in the lane that it had left: one more than `slots`."""
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}
    at_work = {"a": 0, "b": 0}  # by engine
    most = 0

    def held(name: str) -> Answer:
        async def answer(_: Request) -> Reply:
            nonlocal most
            at_work[name] += 1
            most = max(most, at_work[name])
            await gates[name].wait()
            at_work[name] -= 1
            return says("done")

        return answer

    others = [ScriptedEngine.of(held("b"), name="b", slots=1)]
    async with world.open(held("a"), others=others, slots=1) as kernel:
        on_a, on_b = world.program("on-a"), world.program("on-b", "model: b")
        first = [await kernel.spawn(on_a), await kernel.spawn(on_b)]
        for pid in first:
            await world.until_state(kernel, pid, "RUNNING")
        pid = await kernel.spawn(on_a)
        inner = kernel._kernel
        tree = load_tree(on_b, inner.settings)
        birth = Birth(program=tree.program, programs={}, inputs=(), route=inner.world.route(tree.program.model))
        await asyncio.gather(
            kernel.signal(pid, Signal.STOP),
            inner.order(lambda tx: orders.exec_of(tx, inner.world, pid, birth), "exec"),
            kernel.signal(pid, Signal.CONT),
        )
        gates["a"].set()
        await kernel.wait(first[0], 10)
        await kernel.spawn(on_a)
        await kernel.wait(pid + 1, 10)
        assert (await kernel.outcome(pid)).state == "READY"
        gates["b"].set()
        assert (await kernel.wait(pid, 10)).result == "done"
        assert most == 1


async def test_a_fork_beside_unread_mail_does_not_answer_twice(world: World) -> None:
    """The mail is not the fork's, and so it was asked again about what had been answered."""
    async with world.open(echo) as kernel:
        pid = await kernel.spawn(world.program("talker"), {"prompt": "a"}, conversation=True)
        await world.until_state(kernel, pid, "WAITING", "message")
        await kernel.signal(pid, Signal.STOP)
        await kernel.send(pid, "b")
        twin = await kernel.fork(pid)
        await world.until_state(kernel, twin, "WAITING", "message")
        assert len((await kernel.show(twin))["messages"]) == 3 and len(world.asked) == 1


async def test_a_program_that_is_not_taken_any_more_stops_its_schedule_and_nobody_else(world: World) -> None:
    """The kernel ended at the slot, and at every boot after it."""
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % "", prose="Do it. " * 200))
    world.clock.advance(DAY)
    async with world.open(done, program_bytes_max=600) as kernel:
        await world.until(lambda: _stopped(kernel, pid))
        [view] = await kernel.ps()
        assert view.reason.startswith("error:") and "may have at most 600" in view.reason
        assert (await kernel.wait(await kernel.spawn(world.program("other")), 10)).result == "done"
    async with world.open(done) as kernel:
        await kernel.signal(pid, Signal.CONT)
        assert "run" in (await slots_are(world, kernel, pid, 1))[0]


async def _stopped(kernel: Desk, pid: int) -> bool:
    return [p.state for p in await kernel.ps() if p.pid == pid] == ["STOPPED"]


async def test_a_file_with_the_bytes_of_a_tree_is_no_fault_when_the_tree_is_removed(world: World) -> None:
    """`verify` told of a fault that was none, and `backup` refused."""
    world.program("c")
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("p", "tools: spawn(c)"))
        await kernel.wait(pid, 10)
        [[tree]] = kernel.journal.rows("page_get", _process(kernel, pid).tree)
        (world.folder / "tree.json").write_bytes(tree)
        reader = await kernel.spawn(world.program("r", "inputs: {doc: file}"), {"doc": str(world.folder / "tree.json")})
        await kernel.wait(reader, 10)
        await kernel.remove([pid])
        assert audit.verify(kernel.journal) == []
        await kernel.remove([reader])
        assert retention.orphaned(kernel.journal) == [] == audit.verify(kernel.journal)


def _process(kernel: Desk, pid: int) -> Process:
    found = kernel.journal.process(pid)
    assert found is not None
    return found


async def test_a_program_that_is_not_taken_any_more_does_not_keep_the_home_from_booting(world: World) -> None:
    """Its process was in a device call when the kernel ended, and recovery asks the program for its `on_doubt`."""
    entered = asyncio.Event()

    @mains.device
    async def press(button: str) -> str:
        """Press a button."""
        entered.set()
        await asyncio.Event().wait()
        return button

    def answer(request: Request) -> Reply:
        return calls(call("press", button="a")) if request.tools else says("done")

    async with world.open(answer, devices=[press], halt_grace_s=0) as kernel:
        pid = await kernel.spawn(world.program("presser", "tools: press", prose="Do it. " * 200))
        await entered.wait()
    async with world.open(answer, devices=[press], program_bytes_max=600) as kernel:
        assert [p.reason for p in await kernel.ps()] == ["in doubt"]
        assert (await kernel.wait(await kernel.spawn(world.program("other")), 10)).result == "done"
        assert await kernel.signal(pid, Signal.KILL) == [pid]
