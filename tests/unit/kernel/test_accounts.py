"""Accounts and their limits through the desk: who pays, windows, the breaker, top-ups, warnings, refusals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kernel.world import World, by_turn, call, calls, says

import mains
from mains.errors import LimitError, NotFoundError, UsageError
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Request, Usage

DAY_MS = 86_400_000


def tokens(most: int | None, window: str = "total") -> Budget:
    return Budget("tokens", window, most)  # type: ignore[arg-type]


async def test_a_top_up_with_a_key_is_done_once(world: World) -> None:
    program = world.program("p")
    async with world.open(by_turn(says("ok", 7))) as kernel:
        for name in ("ann", "bob"):
            await kernel.account_add(name, zone="UTC")
            await kernel.budget_set(name, [tokens(100, "day"), tokens(500)])
        first = await kernel.topup("ann", tokens=50, key="order 1")
        assert await kernel.topup("ann", tokens=50, key="order 1") == first
        for account, more in (("ann", 51), ("bob", 50)):
            with pytest.raises(UsageError, match="the key `order 1` belongs to another order: a top-up"):
                await kernel.topup(account, tokens=more, key="order 1")
        with pytest.raises(UsageError, match="the key `order 1` belongs to another order: a top-up"):
            await kernel.spawn(program, key="order 1")
        pid = await kernel.spawn(program, key="run 1", paused=True)
        with pytest.raises(UsageError, match=f"the key `run 1` belongs to process {pid}"):
            await kernel.topup("ann", tokens=50, key="run 1")
        with pytest.raises(UsageError, match="has no limit of money"):
            await kernel.topup("ann", nano=50, key="order 2")
        await kernel.topup("bob", tokens=50, key="order 2")  # a refused order has not taken its key
    async with world.open(by_turn(says("ok", 7))) as kernel:
        world.clock.advance(DAY_MS)
        again = await kernel.topup("ann", tokens=50, key="order 1")
        assert [(limit.most, limit.added) for limit in again.limits] == [(550, 0), (100, 0)]
        assert [(limit.most, limit.added) for limit in (await kernel.account("bob")).limits] == [(550, 0), (100, 0)]
        await kernel.topup("ann", tokens=50)
        await kernel.topup("ann", tokens=50)
        assert {limit.most + limit.added for limit in (await kernel.account("ann")).limits} == {650, 200}


async def test_a_process_spends_from_its_program_and_every_account_above(world: World) -> None:
    async with world.open(by_turn(says("ok", 7))) as kernel:
        await kernel.account_add("acme")
        await kernel.account_add("search", under="acme")
        await kernel.account_add("ann", under="search")
        pid = await kernel.spawn(world.program("p"), account="ann")
        await kernel.wait(pid, 10)
        views = {view.name: view for view in await kernel.accounts()}
        assert list(views) == ["home", "acme", "search", "ann", "ann/p"]
        assert {view.posted_tokens for view in views.values()} == {17}
        assert [views[name].path for name in ("ann", "ann/p")] == ["home/acme/search/ann", "home/acme/search/ann/p"]
        assert [views[name].kind for name in ("home", "ann", "ann/p")] == ["home", "account", "program"]
        assert (await kernel.account(str(pid))).kind == "process"
        assert [p.account for p in await kernel.ps(every=True)] == ["ann"]


async def test_a_child_counts_in_its_own_program_too(world: World) -> None:
    world.program("child", prose="Child.")

    def answer(request: Request) -> Reply:
        if request.messages[0].text == "Child.":
            return says("done", 90)
        return by_turn(calls(call("spawn", program="child"), call("wait")), says("end"))(request)  # type: ignore[return-value]

    async with world.open(answer) as kernel:
        await kernel.account_add("ann")
        parent = world.program("parent", "tools: [spawn(child), wait]", "Parent.")
        await kernel.wait(await kernel.spawn(parent, account="ann"), 10)
        posted = {view.name: view.posted_tokens for view in await kernel.accounts()}
        assert posted == {"home": 130, "ann": 130, "ann/child": 100, "ann/parent": 130}
        await kernel.budget_set("ann/child", [tokens(110)])
        pid = await kernel.spawn(parent, account="ann")
        outcome = await kernel.wait(pid, 10)
        assert outcome.state == "WAITING"
        assert "breaker: the limit of account ann/child (110 tokens)" in outcome.reason


async def test_a_limit_set_at_noon_counts_the_whole_day_and_resets_at_midnight(world: World) -> None:
    async with world.open(by_turn(says("ok", 40)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann", zone="Asia/Tokyo")
        program = world.program("p")
        await kernel.wait(await kernel.spawn(program, account="ann"), 10)
        view = await kernel.budget_set("ann", [tokens(90, "day")])
        assert [(limit.used, limit.left, limit.held) for limit in view.limits] == [(50, 40, 0)]
        first, second = [await kernel.spawn(program, account="ann") for _ in range(2)]
        await world.until_state(kernel, first, "EXITED")
        await world.until_state(kernel, second, "STOPPED", "breaker")
        reason = (await kernel.outcome(second)).reason
        assert "the limit of account ann (90 tokens a day)" in reason
        assert "resets at 2027-01-16T00:00:00+09:00" in reason
        world.clock.advance(DAY_MS)
        await world.until_state(kernel, second, "EXITED")
        limit = (await kernel.account("ann")).limits[0]
        assert (limit.used, limit.resets_at[:10]) == (50, "2027-01-17")


async def test_a_top_up_wakes_who_was_stopped_where_they_were(world: World) -> None:
    async with world.open(by_turn(says("ok", 40)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(10)])
        pids = [await kernel.spawn(world.program("p"), account="ann") for _ in range(6)]
        for pid in pids:
            await world.until_state(kernel, pid, "STOPPED", "breaker")
        await kernel.topup("ann", tokens=100)
        for pid in pids[:2]:
            await world.until_state(kernel, pid, "EXITED")
        for pid in pids[2:]:
            await world.until_state(kernel, pid, "STOPPED", "breaker")
        asked = len(world.asked)
        assert asked == 2, "no more calls than there was room for"
        await kernel.topup("ann", tokens=10_000)
        for pid in pids[2:]:
            await world.until_state(kernel, pid, "EXITED")
        view = await kernel.account("ann")
        assert (view.posted_tokens + view.overrun_tokens, view.limits[0].used) == (300, 300)


async def test_who_waits_right_after_a_top_up_is_not_told_that_the_process_is_stuck(world: World) -> None:
    async with world.open(by_turn(says("ok", 40)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(10)])
        pid = await kernel.spawn(world.program("p"), account="ann")
        assert (await kernel.wait(pid, 10)).reason.startswith("breaker")
        await kernel.topup("ann", tokens=10_000)
        assert (await kernel.wait(pid, 10)).state == "EXITED"


async def test_a_top_up_of_a_window_is_gone_with_it(world: World) -> None:
    async with world.open(by_turn(says("ok", 40)), output_tokens_max=50) as kernel:
        await kernel.account_add("ann", zone="UTC")
        await kernel.budget_set("ann", [tokens(20, "day")])
        pids = [await kernel.spawn(world.program("p"), account="ann") for _ in range(2)]
        for pid in pids:
            await world.until_state(kernel, pid, "STOPPED", "breaker")
        view = await kernel.topup("ann", tokens=60)
        assert [(limit.most, limit.added, limit.left) for limit in view.limits] == [(20, 60, 80)]
        await world.until_state(kernel, pids[0], "EXITED")
        await world.until_state(kernel, pids[1], "STOPPED", "breaker")
        world.clock.advance(DAY_MS)
        await world.until(lambda: _left(kernel, 20))
        await world.until_state(kernel, pids[1], "STOPPED", "breaker")


async def _left(kernel: Desk, left: int) -> bool:
    return (await kernel.account("ann")).limits[0].left == left


async def test_a_limit_is_warned_of_once_at_each_step(world: World) -> None:
    async with world.open(by_turn(says("ok", 30))) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(100), Budget("tokens", "month", 100)])
        for _ in range(2):
            await kernel.wait(await kernel.spawn(world.program("p"), account="ann", budget=400), 10)
        warned = [n for n in await _home_events(kernel) if n[0] == "warned"]
        assert [(w[1]["window"], w[1]["percent"]) for w in warned] == [("month", 80), ("total", 80)]
        await kernel.topup("ann", tokens=20)
        assert {limit.warned for limit in (await kernel.account("ann")).limits} == {0}


async def _home_events(kernel: Desk) -> list[tuple[str, dict[str, object]]]:
    import json

    return [(row[3], json.loads(row[4])) for row in kernel.journal.rows("event_of", 0, 0, 1_000)]


async def test_the_reason_names_who_holds_the_room(world: World) -> None:
    gate = asyncio.Event()

    async def answer(request: Request) -> Reply:
        await asyncio.wait_for(gate.wait(), 10)
        return says("ok")

    async with world.open(answer, output_tokens_max=50) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(70)])
        first, second = [await kernel.spawn(world.program("p"), account="ann") for _ in range(2)]
        await world.until_state(kernel, second, "WAITING", "quota")
        assert f"held by process {first} (" in (await kernel.outcome(second)).reason
        gate.set()
        await kernel.wait(second, 10)


CALL = {"engine": "gate", "model": "m", "key": "k", "timeout_s": 5}

BAD = [
    ("account_add", ("Ann",), {}, "`Ann` is no name for an account"),
    ("account_add", ("home",), {}, "`home` is no name for an account"),
    ("account_add", ("a",), {"under": "nobody"}, "there is no account `nobody`"),
    ("account_add", ("a",), {"under": "a"}, "account a cannot be under itself"),
    ("account_add", ("ann",), {}, "there is an account `ann` already"),
    ("account_add", ("a",), {"zone": "Mars/Base"}, "is no time zone"),
    ("account_add", ("a",), {"unknown_price": "maybe"}, "unknown_price is `refuse` or `allow`"),
    ("budget_set", ("ann", [tokens(-5)]), {}, "a limit is a number above zero"),
    ("budget_set", ("ann", [tokens(0, "day")]), {}, "a limit is a number above zero"),
    ("budget_set", ("ann", [tokens(5), Budget("money", "day", -1)]), {}, "a limit is a number above zero"),
    ("budget_set", ("ann", [tokens(1.5)]), {}, "a limit is a number above zero (a whole one, "),  # type: ignore[arg-type]
    ("budget_set", ("ann", [tokens(5, "day"), tokens(6, "day")]), {}, "a limit stands twice in one order"),
    ("budget_set", ("ann", [Budget("money", "day", 10**19)]), {}, "(a whole one, 1,000,000,000,000,000,000 at most)"),
    ("budget_set", ("ann", []), {}, "1 to 16 limits"),
    ("budget_set", ("nobody", [tokens(5)]), {}, "there is no account `nobody`"),
    ("budget_set", ("ann/p", [tokens(None)]), {}, "there is no account `ann/p`"),
    ("budget_set", ("99", [tokens(5)]), {}, "there is no process 99"),
    ("topup", ("ann",), {"tokens": 5}, "has no limit of tokens"),
    ("topup", ("ann",), {}, "a top-up needs tokens or money"),
    ("topup", ("ann",), {"tokens": 0.5}, "a top-up is a number above zero"),
    ("account", ("ann/x",), {}, "there is no account `ann/x`"),
    ("account", ("ann\ud800",), {}, "is no Unicode text"),
    ("meter", (), {"from_ms": 10**30}, "are whole milliseconds since 1970"),
    ("meter", (), {"to_ms": "now"}, "are whole milliseconds since 1970"),
    ("hold", ("ann", 1.5, 20), CALL, "in whole tokens"),
    ("hold", ("ann", 1, 20), {**CALL, "key": "\ud800"}, "is no Unicode text"),
    ("spawn", ("p.md",), {"account": "\ud800"}, "is no Unicode text"),
    ("spawn", ("p.md",), {"budget": 100.5}, "a budget is a number of tokens above zero"),
]


@pytest.mark.parametrize(("door", "given_", "named", "told"), BAD)
async def test_what_is_wrong_gets_one_line_and_changes_nothing(
    world: World, door: str, given_: tuple[object, ...], named: dict[str, object], told: str
) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann")
        before = (await kernel.accounts(), kernel.journal.rows("budget_all"))
        with pytest.raises((UsageError, NotFoundError, LimitError)) as caught:
            await getattr(kernel, door)(*given_, **named)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (await kernel.accounts(), kernel.journal.rows("budget_all")) == before


@pytest.mark.parametrize("usage", [Usage(5, 50, 5), Usage(1.5, 0, 0), Usage(-1, 0, 0), Usage(0, 0, 10**12)])  # type: ignore[arg-type]
async def test_usage_that_cannot_be_is_refused_and_the_hold_stays_open(world: World, usage: Usage) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        hold = await kernel.hold("home", 10, 20, **CALL)  # type: ignore[arg-type]
        await kernel.hold_sent(hold.id)
        with pytest.raises(UsageError):
            await kernel.settle(hold.id, usage)
        assert (await kernel.account("home")).held_tokens == 30
        assert (await kernel.settle(hold.id, Usage(10, 10, 5))).tokens == 15


async def test_nothing_runs_on_an_account_that_is_not_there(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        for account, told in (("nobody", "no account `nobody`"), ("home/p", "no account `home/p`")):
            with pytest.raises(UsageError, match=told):
                await kernel.spawn(world.program("p"), account=account)
        assert await kernel.ps(every=True) == []


async def test_the_meter_sums_what_ran(world: World) -> None:
    async with world.open(by_turn(says("ok", 5))) as kernel:
        await kernel.account_add("ann")
        await kernel.account_add("bob")
        for account, program in (("ann", "p"), ("ann", "q"), ("bob", "p")):
            await kernel.wait(await kernel.spawn(world.program(program), account=account), 10)
        rows = await kernel.meter()
        assert [(r.account, r.program, r.calls, r.input_tokens, r.output_tokens) for r in rows] == [
            ("ann", "p", 1, 10, 5), ("ann", "q", 1, 10, 5), ("bob", "p", 1, 10, 5),
        ]  # fmt: skip
        assert [(r.program, r.account, r.calls) for r in await kernel.meter(by="program")] == [
            ("p", "", 2),
            ("q", "ann", 1),
        ]
        assert [(r.account, r.calls) for r in await kernel.meter(by="user", account="ann")] == [("ann", 2)]
        assert [r.calls for r in await kernel.meter(by="day")] == [3]
        assert [r.calls for r in await kernel.meter(account="ann/q")] == [1]
        assert [r.calls for r in await kernel.meter(account="3")] == [1]
        assert await kernel.meter(from_ms=world.clock.now_ms() + 1) == []
        statement = await kernel.statement("ann", "2027-01")
        assert (statement.calls, statement.tokens, statement.open_holds, len(statement.rows)) == (2, 30, 0, 2)
        with pytest.raises(UsageError, match="`2027-13` is no month"):
            await kernel.statement("ann", "2027-13")
        with pytest.raises(UsageError, match="not by `hour`"):
            await kernel.meter(by="hour")  # type: ignore[arg-type]


async def test_what_was_removed_is_still_in_the_meter_and_the_sums(world: World) -> None:
    async with world.open(by_turn(says("ok", 5))) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(1_000, "month")])
        pid = await kernel.spawn(world.program("p"), account="ann", budget=500)
        await kernel.wait(pid, 10)
        before = (await kernel.meter(), await kernel.meter(by="day"), await kernel.accounts())
        assert (await kernel.remove([pid])).erased
        assert (await kernel.meter(), await kernel.meter(by="day"), await kernel.accounts()) == before


async def test_a_foreign_call_is_held_settled_and_adjusted(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [tokens(200)])
        ask = {"engine": "gate", "model": "m", "timeout_s": 60}
        hold = await kernel.hold("ann", 50, 100, key="one", **ask)  # type: ignore[arg-type]
        assert hold == await kernel.hold("ann", 50, 100, key="one", **ask)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="another call's"):
            await kernel.hold("ann", 50, 90, key="one", **ask)  # type: ignore[arg-type]
        with pytest.raises(LimitError, match="has 50 left, 150 held"):
            await kernel.hold("ann", 50, 100, key="two", **ask)  # type: ignore[arg-type]
        await kernel.hold_sent(hold.id)
        assert (await kernel.settle(hold.id, Usage(50, 0, 20))).tokens == 70
        late = await kernel.hold("ann", 50, 50, key="three", **ask)  # type: ignore[arg-type]
        await kernel.hold_sent(late.id)
        held = await kernel.hold("ann", 5, 20, key="four", **ask)  # type: ignore[arg-type]
        world.clock.advance(61_000)
        await world.until(lambda: _none_held(kernel))
        assert (await kernel.account("ann")).posted_tokens == 170, "the one that was sent is posted whole"
        assert (await kernel.settle(late.id, Usage(50, 0, 10))).tokens == -40
        assert (await kernel.settle(late.id, Usage(50, 0, 10))).tokens == 0
        assert (await kernel.account("ann")).posted_tokens == 130
        with pytest.raises(UsageError, match="has ended: it is expired"):
            await kernel.void(held.id)
        assert [(row.calls, row.output_tokens) for row in await kernel.meter()] == [(2, 80)], (
            "20, a whole hold, less 40"
        )


async def _none_held(kernel: Desk) -> bool:
    return (await kernel.account("ann")).held_tokens == 0


async def test_a_call_that_was_out_when_the_kernel_ended_is_posted_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    ask = {"engine": "gate", "model": "m", "timeout_s": 60}
    async with world.open(by_turn(says("ok"))) as kernel:
        out = await kernel.hold("home", 10, 90, key="out", **ask)  # type: ignore[arg-type]
        await kernel.hold_sent(out.id)
        await kernel.hold("home", 10, 40, key="in", **ask)  # type: ignore[arg-type]
    async with world.open(by_turn(says("ok"))) as kernel:
        view = await kernel.account("home")
        assert (view.posted_tokens, view.held_tokens) == (100, 50)
        assert (await kernel.settle(out.id, Usage(10, 0, 5))).tokens == -85


@settings(deadline=None, max_examples=50)
@given(names=st.lists(st.text("abc/. \n\0é", max_size=12), max_size=4))
def test_no_name_breaks_the_tree(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    async def play() -> None:
        world = World(tmp_path_factory.mktemp("names"))
        async with world.open(by_turn(says("ok"))) as kernel:
            for name in names:
                try:
                    await kernel.account_add(name, under=names[0])
                except mains.MainsError:
                    continue
            paths = [view.path for view in await kernel.accounts()]
            assert len(paths) == len(set(paths))
            assert all(path.split("/")[0] == "home" for path in paths)

    asyncio.run(play())


async def test_the_time_of_a_foreign_call_is_watched_though_nothing_else_happens(world: World) -> None:
    async with world.open(by_turn(says("ok"))) as kernel:
        await kernel.hold("home", 50, 100, key="one", engine="gate", model="m", timeout_s=5)
        world.clock.advance(5_001)
        await world.until(lambda: _nothing_held(kernel))


async def _nothing_held(kernel: Desk) -> bool:
    return (await kernel.account("home")).held_tokens == 0
