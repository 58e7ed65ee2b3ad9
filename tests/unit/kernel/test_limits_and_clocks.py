"""Limits where clocks, zones and sizes are odd: each case was found by a hostile look at the ledger's doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from bench import metered

import mains
from mains.errors import LimitError, UsageError
from mains.kernel import accountdesk as desk_module
from mains.kernel import reckon
from mains.kernel.billing import Budget, LimitView
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Usage
from mains.testing import FakeClock, ScriptedEngine

DAY_MS = 86_400_000
REACH_MS = round(mains.Settings().model_timeout_s * 1_000)
TEAM_TODAY = (1 << 40, "tokens", "day", int(datetime(2026, 5, 1, tzinfo=UTC).timestamp() * 1_000))
NOON_MS = int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp() * 1_000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON_MS)


@pytest_asyncio.fixture
async def desk(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Desk]:
    async with mains.open(metered.prepare(tmp_path, 9), clock=clock) as desk:
        yield desk


async def hold(desk: Desk, account: str, tokens: int, key: str) -> int:
    """A hold of so many tokens, 20 of them output."""
    taken = await desk.hold(account, tokens - 20, 20, engine="http", model="m", key=key, timeout_s=600)
    assert taken.tokens == tokens
    return taken.id


async def only_limit(desk: Desk, account: str, window: str) -> LimitView:
    return next(each for each in (await desk.account(account)).limits if each.window == window)


async def test_a_limit_holds_in_the_window_before_it_was_set(desk: Desk, clock: FakeClock) -> None:
    await desk.account_add("team", zone="UTC")
    used = await hold(desk, "team", 100, "yesterday")
    await desk.settle(used, Usage(input_tokens=80, output_tokens=20))
    clock.advance(DAY_MS)
    await desk.budget_set("team", [Budget("tokens", "day", 100)])
    clock.jump(-DAY_MS)
    with pytest.raises(LimitError):
        await hold(desk, "team", 30, "yesterday again")
    assert reckon.verify(desk.journal) == []


async def test_a_limit_holds_in_a_window_that_came_before_the_clock_went_back(desk: Desk, clock: FakeClock) -> None:
    await desk.account_add("team", zone="UTC")
    clock.jump(DAY_MS)
    out = await hold(desk, "team", 60, "tomorrow")
    clock.jump(-DAY_MS)
    await desk.budget_set("team", [Budget("tokens", "day", 100)])
    assert (await only_limit(desk, "team", "day")).left == 100
    await desk.settle(out, Usage(input_tokens=70, output_tokens=20))
    clock.jump(DAY_MS)
    assert (await only_limit(desk, "team", "day")).left == 10
    assert reckon.verify(desk.journal) == []


async def test_usage_that_comes_late_counts_in_a_window_that_was_over(desk: Desk, clock: FakeClock) -> None:
    await desk.account_add("team", zone="UTC")
    late = await hold(desk, "team", 60, "yesterday")
    await desk.void(late)
    clock.advance(DAY_MS)
    await desk.budget_set("team", [Budget("tokens", "day", 100)])
    await desk.settle(late, Usage(input_tokens=20, output_tokens=10))
    assert (await only_limit(desk, "team", "day")).left == 100
    clock.jump(-DAY_MS)
    assert (await only_limit(desk, "team", "day")).left == 70
    assert reckon.verify(desk.journal) == []


async def test_a_limit_counts_only_what_is_below_its_account(desk: Desk, clock: FakeClock) -> None:
    await desk.account_add("acme", zone="UTC")
    await desk.account_add("ann", under="acme")
    for account in ("home", "acme", "ann"):
        await hold(desk, account, 50, account)
    for account, left in (("home", 850), ("acme", 900), ("ann", 950)):
        await desk.budget_set(account, [Budget("tokens", "day", 1_000)])
        assert (await only_limit(desk, account, "day")).left == left


async def test_a_topup_of_a_process_counts_in_its_own_zone(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = str(await desk.spawn(tmp_path / "looker.md", paused=True))
    monkeypatch.setattr(desk_module, "local_zone", lambda: "America/Adak")
    await desk.budget_set(pid, [Budget("tokens", "day", 1_000)])
    await desk.topup(pid, tokens=500)
    assert (await only_limit(desk, pid, "day")).left == 1_500


async def test_the_zone_of_a_process_stays(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = str(await desk.spawn(tmp_path / "looker.md", paused=True))
    for zone, window in (("Pacific/Kiritimati", "day"), ("America/Adak", "week")):
        monkeypatch.setattr(desk_module, "local_zone", lambda zone=zone: zone)
        await desk.budget_set(pid, [Budget("tokens", window, 1_000)])  # type: ignore[arg-type]
    assert (await desk.account(pid)).zone == "Pacific/Kiritimati"


async def test_an_unknown_unit_is_refused(desk: Desk) -> None:
    with pytest.raises(UsageError):
        await desk.budget_set("home", [Budget("eur", "day", 5)])  # type: ignore[arg-type]


async def test_an_unknown_window_is_refused(desk: Desk) -> None:
    with pytest.raises(UsageError):
        await desk.budget_set("home", [Budget("tokens", "year", 5)])  # type: ignore[arg-type]


async def test_topups_have_an_end_and_say_so(desk: Desk) -> None:
    await desk.budget_set("home", [Budget("money", "day", 10**18)])
    await desk.topup("home", nano=10**18)
    with pytest.raises((UsageError, LimitError)):
        await desk.topup("home", nano=10**18)


@pytest.mark.parametrize("timeout_s", [float("nan"), float("inf")])
async def test_a_timeout_that_is_no_number_is_refused(desk: Desk, timeout_s: float) -> None:
    with pytest.raises(UsageError):
        await desk.hold("home", 1, 20, engine="http", model="m", key="k", timeout_s=timeout_s)


async def test_what_an_engine_reports_has_a_bound(tmp_path: Path) -> None:
    (tmp_path / "unused").mkdir()
    metered.prepare(tmp_path / "unused", 9)
    usage = Usage(input_tokens=2**62, output_tokens=2**62)
    engine = ScriptedEngine.of(lambda request: Reply("it", usage=usage))
    async with mains.open(tmp_path / "home", engines=[engine]) as desk:
        for _ in range(2):
            outcome = await desk.wait(await desk.spawn(tmp_path / "unused" / "looker.md"))
            assert outcome.state == "EXITED"


async def test_each_reset_wakes_who_still_waits(tmp_path: Path, clock: FakeClock) -> None:
    """Three processes, room for one a week, and calls that take longer than that."""
    home = metered.prepare(tmp_path, 9)
    never = asyncio.Event()

    async def slow() -> Reply:
        await never.wait()
        return Reply("it")

    engine = ScriptedEngine.of(lambda request: slow(), slots=4)
    async with mains.open(home, clock=clock, engines=[engine]) as desk:
        (tmp_path / "probe").mkdir()
        size = await metered.size_of_a_call(tmp_path / "probe")
        await desk.account_add("team", zone="UTC")
        await desk.budget_set("team", [Budget("tokens", "week", size + 10)])
        for _ in range(3):
            await desk.spawn(tmp_path / "looker.md", account="team")
        for week in range(3):
            async with asyncio.timeout(2):
                while [p.state for p in await desk.ps()].count("RUNNING") <= week:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0)
            clock.advance(7 * DAY_MS)


async def test_several_limits_are_set_or_none(desk: Desk) -> None:
    with pytest.raises(UsageError):
        await desk.budget_set("home", [Budget("tokens", "day", 5), Budget("tokens", "week", -5)])
    assert (await desk.account("home")).limits == []


async def test_a_hold_ends_soon_after_the_clock_went_back(desk: Desk, clock: FakeClock) -> None:
    await desk.budget_set("home", [Budget("tokens", "total", 100)])
    await hold(desk, "home", 60, "before")
    clock.jump(-DAY_MS)
    clock.advance(15_000)  # it looks
    while desk.journal.rows("timer_next")[0][0] > clock.now_ms() + REACH_MS:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    assert (await only_limit(desk, "home", "total")).held == 60
    clock.advance(REACH_MS)
    async with asyncio.timeout(5):
        while (await only_limit(desk, "home", "total")).held:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    await hold(desk, "home", 100, "after")


async def test_a_hold_ends_soon_after_a_boot_at_an_earlier_hour(tmp_path: Path, clock: FakeClock) -> None:
    home = metered.prepare(tmp_path, 9)
    async with mains.open(home, clock=clock) as desk:
        await hold(desk, "home", 60, "before")
    clock.jump(-DAY_MS)
    async with mains.open(home, clock=clock) as desk:
        assert desk.journal.rows("timer_next") == [(clock.now_ms() + REACH_MS,)]
        assert [each.held_tokens for each in await desk.accounts()] == [60]


async def test_late_usage_of_a_voided_hold_is_an_adjustment(desk: Desk) -> None:
    await desk.budget_set("home", [Budget("tokens", "day", 100)])
    late = await hold(desk, "home", 50, "late")
    await desk.void(late)
    charge = await desk.settle(late, Usage(input_tokens=5, output_tokens=5))
    assert charge.tokens == (await only_limit(desk, "home", "day")).used == 10
    assert reckon.verify(desk.journal) == []


async def test_a_limit_that_was_away_forgets_its_topups(desk: Desk) -> None:
    await desk.budget_set("home", [Budget("tokens", "day", 100)])
    await desk.topup("home", tokens=100)
    await desk.budget_set("home", [Budget("tokens", "day", None)])
    await hold(desk, "home", 90, "between")
    await desk.budget_set("home", [Budget("tokens", "day", 100)])
    found = await only_limit(desk, "home", "day")
    assert (found.most, found.added, found.held, found.left) == (100, 0, 90, 10)
    with pytest.raises(LimitError):
        await hold(desk, "home", 40, "after")


async def test_verify_forgets_topups_with_their_limit(desk: Desk) -> None:
    await desk.account_add("team", zone="UTC")
    await desk.budget_set("team", [Budget("tokens", "day", 100)])
    await desk.topup("team", tokens=10_000)
    for most in (None, 100):
        await desk.budget_set("team", [Budget("tokens", "day", most)])
    await desk.journal.commit(lambda tx: tx.one("used_move", *TEAM_TODAY, 0, -500, 0), "damage")
    await hold(desk, "team", 300, "above")
    await desk.journal.commit(lambda tx: tx.one("used_move", *TEAM_TODAY, 0, 500, 0), "mend")
    (fault,) = reckon.verify(desk.journal)
    assert "was granted above the limit" in fault
