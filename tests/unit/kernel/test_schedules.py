"""Schedules: each slot once, run or skipped with a reason; missed slots; clocks that change; crashes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kernel.world import World, call, calls, says

from mains.errors import UsageError
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Signal
from mains.kernel.schedules import decide
from mains.program import Schedule
from mains.settings import Settings

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NIGHTLY = "schedule: {cron: 0 7 * * *, timezone: Europe/Berlin%s}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.clock.advance(ms("2026-11-24T12:00") - made.clock.now_ms())
    return made


def ms(local: str) -> int:
    return int(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1_000)


def at(slots: Iterable[int], zone: str = "Europe/Berlin") -> list[str]:
    return [datetime.fromtimestamp(slot / 1_000, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for slot in slots]


async def slots_of(kernel: Desk, pid: int) -> list[dict[str, Any]]:
    return [json.loads(n.text) for n in await kernel.history(pid) if n.kind == "slot"]


async def looked(world: World, kernel: Desk, pid: int) -> list[tuple[bool, str, int]]:
    """What became of the slots so far, once none is due any more and no run is at work."""

    async def quiet() -> bool:
        schedule = (await kernel.show(pid))["schedule"]
        running = [p for p in await kernel.ps() if p.parent == pid]
        return not running and datetime.fromisoformat(schedule["next"]).timestamp() * 1_000 > world.clock.now_ms()

    await world.until(quiet)
    return [("run" in e, e.get("reason", ""), e.get("count", 1)) for e in await slots_of(kernel, pid)]


def done(_: Request) -> Reply:
    return says("done")


async def test_a_slot_starts_one_run_with_the_inputs(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""), {"prompt": "tidy up"})
        schedule = (await kernel.show(pid))["schedule"]
        assert (schedule["next"], schedule["timezone"]) == ("2026-11-25T07:00:00+01:00", "Europe/Berlin")
        assert (await kernel.outcome(pid)).reason == "timer: next run 2026-11-25T07:00:00+01:00"
        assert kernel.busy()
        for _ in range(2):
            world.clock.advance(DAY)
            await looked(world, kernel, pid)
        runs = [p for p in await kernel.ps(every=True) if p.parent == pid]
        assert [p.label for p in runs] == ["2026-11-25T07:00:00+01:00", "2026-11-26T07:00:00+01:00"]
        assert [m.text for m in world.asked[0].messages] == ["Do it.", "tidy up"]
        assert (await kernel.show(runs[0].pid))["key"] == f"{pid}@2026-11-25T07:00:00+01:00"
        assert await slots_of(kernel, pid) == [
            {"kind": "slot", "slot_ms": ms("2026-11-25T07:00"), "next_ms": ms("2026-11-26T07:00"), "run": runs[0].pid},
            {"kind": "slot", "slot_ms": ms("2026-11-26T07:00"), "next_ms": ms("2026-11-27T07:00"), "run": runs[1].pid},
        ]


@pytest.mark.parametrize(
    ("catch_up", "ran", "skipped"),
    [("latest", [False] * 4 + [True], 4), ("all", [True] * 5, 0), ("none", [False] * 5, 5)],
)
async def test_missed_slots_after_a_long_sleep(world: World, catch_up: str, ran: list[bool], skipped: int) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % f", catch_up: {catch_up}"))
    world.clock.advance(5 * DAY)
    async with world.open(done) as kernel:
        found = await looked(world, kernel, pid)
        assert [run for run, _, _ in found] == ran
        assert sum("missed: nothing ran then" in why for _, why, _ in found) == skipped
    async with world.open(done) as kernel:  # and no slot comes again
        assert len(await looked(world, kernel, pid)) == 5
        world.clock.advance(19 * HOUR)  # from noon to seven
        assert [run for run, _, _ in await looked(world, kernel, pid)][5:] == [True]


async def test_all_runs_missed_slots_one_after_the_other(world: World) -> None:
    at_once = most = 0

    async def answer(_: Request) -> Reply:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await world.until(_later())
        at_once -= 1
        return says("done")

    async with world.open(answer, catch_up_slots_max=3) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ", catch_up: all"))
        world.clock.advance(5 * DAY)
        found = await looked(world, kernel, pid)
        assert [run for run, _, _ in found] == [False, False, True, True, True]
        assert found[0][1] == "missed: more than 3 (catch_up_slots_max)"
        assert most == 1


def _later() -> Any:
    rounds = iter(range(50))

    async def passed() -> bool:
        return next(rounds, None) is None

    return passed


async def test_no_burst_after_two_months_asleep(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("often", "schedule: {cron: '* * * * *', timezone: UTC}"))
    world.clock.advance(60 * DAY)
    async with world.open(done) as kernel:
        found = await looked(world, kernel, pid)
        assert sum(count for _, _, count in found) == 60 * 24 * 60
        assert [run for run, _, _ in found].count(True) == 1 and found[-1][0]
        assert len(found) < 2_000
        assert len([p for p in await kernel.ps(every=True) if p.parent == pid]) == 1


async def test_a_slot_is_skipped_while_the_run_before_goes_on(world: World) -> None:
    def first_waits(request: Request) -> Reply:
        return calls(call("sleep", seconds=3_600 * 30)) if len(world.asked) == 1 else says("done")

    async with world.open(first_waits) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % "" + "\ntools: sleep"))
        world.clock.advance(DAY)
        await world.until_state(kernel, pid + 1, "WAITING")
        world.clock.advance(DAY)
        await world.until(lambda: _slotted(kernel, pid, world))
        assert (await slots_of(kernel, pid))[1]["reason"] == (
            f"the run before, process {pid + 1}, has not ended: WAITING (timer)"
        )


async def test_overlap_allow_runs_side_by_side(world: World) -> None:
    async with world.open(lambda _: calls(call("sleep", seconds=3_600 * 30))) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ", overlap: allow" + "\ntools: sleep"))
        for n in (1, 2):
            world.clock.advance(DAY)
            await world.until_state(kernel, pid + n, "WAITING")
        assert len([p for p in await kernel.ps() if p.parent == pid]) == 2


async def test_a_paused_schedule_skips_and_goes_on_when_resumed(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""))
        await kernel.signal(pid, Signal.STOP)
        world.clock.advance(2 * DAY)
        assert [(run, why) for run, why, _ in await looked(world, kernel, pid)] == [(False, "paused")] * 2
        await kernel.signal(pid, Signal.CONT)
        world.clock.advance(DAY)
        assert (await looked(world, kernel, pid))[-1][0]


async def test_now_runs_it_once_and_a_killed_schedule_is_gone(world: World) -> None:
    async with world.open(done) as kernel:
        program = world.program("nightly", NIGHTLY % "")
        assert (await kernel.wait(await kernel.spawn(program, now=True), 10)).result == "done"
        pid = await kernel.spawn(program)
        await kernel.signal(pid, Signal.TERM)
        assert (await kernel.wait(pid, 10)).exit_code == 143
        assert not kernel.busy()


async def test_a_schedule_has_no_mailbox_and_no_turn_to_fork(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""))
        with pytest.raises(UsageError, match="is a schedule and reads no messages"):
            await kernel.send(pid, "hello")
        with pytest.raises(UsageError, match="is a schedule: there is no turn"):
            await kernel.fork(pid)
        assert await kernel.spawn(world.program("nightly", NIGHTLY % ""), key="k") != pid


async def test_budgets_of_a_run_and_of_all_runs(world: World) -> None:
    async with world.open(done) as kernel:
        program = world.program("nightly", NIGHTLY % "" + "\nbudget: 5k\nmax_tokens: 500")
        pid = await kernel.spawn(program, budget=200)
        for _ in range(20):
            world.clock.advance(DAY)
            await world.until(lambda: _slotted(kernel, pid, world))
        runs = [p for p in await kernel.ps(every=True) if p.parent == pid]
        assert (await kernel.show(runs[0].pid))["budget"] == 5_000
        assert runs[-1].state == "STOPPED" and "breaker" in runs[-1].reason  # the schedule's own budget is spent
        assert "has not ended: STOPPED (breaker)" in (await slots_of(kernel, pid))[-1]["reason"]


async def _slotted(kernel: Desk, pid: int, world: World) -> bool:
    schedule = (await kernel.show(pid))["schedule"]
    busy = any(p.parent == pid and p.state in ("READY", "RUNNING") for p in await kernel.ps())
    return not busy and datetime.fromisoformat(schedule["next"]).timestamp() * 1_000 > world.clock.now_ms()


async def test_a_clock_that_goes_back_runs_no_slot_twice(world: World) -> None:
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY % ""))
        world.clock.advance(DAY)
        await looked(world, kernel, pid)
        world.clock.advance(-DAY)
        world.clock.advance(DAY)
        assert len(await looked(world, kernel, pid)) == 1


# clocks that change: Europe/Berlin leaves out 02:00-03:00 on 29 March 2026 and has it twice on 25 October


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2026-03-28T12:00", ["03-29 03:00+0200", "03-30 02:30+0200"]),
        ("30 2 * * *", "2026-10-24T12:00", ["10-25 02:30+0200", "10-26 02:30+0100"]),
        ("0 7 * * *", "2026-03-28T08:00", ["03-29 07:00+0200", "03-30 07:00+0200"]),
        ("0 * * * *", "2026-03-29T00:30", ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"]),
        ("0 * * * *", "2026-10-25T01:30", ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"]),
    ],
)
def test_clocks_that_change(cron: str, after: str, expected: list[str]) -> None:
    slots = Schedule(cron, "Europe/Berlin").slots(ms(after))
    assert at(islice(slots, len(expected))) == expected


@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24"])
async def test_a_daily_job_runs_once_a_day_over_a_change(world: World, day: str) -> None:
    world.clock.advance(ms(f"{day}T12:00") - world.clock.now_ms())
    async with world.open(done) as kernel:
        pid = await kernel.spawn(world.program("nightly", NIGHTLY.replace("0 7", "30 2") % ""))
        for _ in range(3 * 24 * 4):
            world.clock.advance(15 * MINUTE)
            await looked(world, kernel, pid)
        assert [run for run, _, _ in await looked(world, kernel, pid)] == [True] * 3


@given(
    slots=st.lists(st.integers(0, 10**6), min_size=1, max_size=300, unique=True).map(sorted),
    late=st.integers(0, 10**6),
    catch_up=st.sampled_from(["latest", "all", "none"]),
    overlap=st.sampled_from(["skip", "allow"]),
    held=st.sampled_from(["", "paused"]),
    running=st.sampled_from(["", "process 7 runs"]),
)
def test_each_slot_is_run_skipped_or_waits(
    slots: list[int], late: int, catch_up: str, overlap: str, held: str, running: str
) -> None:
    schedule = Schedule("* * * * *", "UTC", catch_up, overlap)
    plan = decide(schedule, slots, slots[-1] + late, held, running, Settings())
    left = len(slots) - plan.skipped
    assert left >= 0 and plan.run <= left
    assert plan.skipped == 0 or plan.why
    if not plan.run and left:
        assert running and catch_up == "all"  # somebody wakes it: that run's end
    if plan.run and left > 1:
        assert catch_up == "all"
    if held or (running and overlap == "skip"):
        assert not plan.run
