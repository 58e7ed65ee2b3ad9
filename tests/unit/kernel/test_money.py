"""Money: limits in it, tariffs that are pinned, unknown prices, off-peak, and what the meter says was saved."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.kernel.world import World, by_turn, says

import mains
from mains.errors import ConfigError
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk
from mains.kernel.ports import Reply, Usage

NANO = 1_000_000_000
PRICE = "input = 1000\noutput = 4000"  # a thousandth and four of a dollar for a token
HOUR_MS = 3_600_000


def home(world: World, price: str = PRICE, top: str = "") -> World:
    """A home whose engine `scripted` has this price."""
    folder = world.folder / "home"
    folder.mkdir(exist_ok=True)
    (folder / "replies.yaml").write_text("replies: []\n")
    table = f"\n[engines.scripted.price]\n{price}\n" if price else ""
    (folder / "mains.toml").write_text(f'{top}\n[engines.scripted]\nkind = "scripted"\npath = "replies.yaml"\n{table}')
    return world


def money(most: int | None, window: str = "total") -> Budget:
    return Budget("money", window, most)  # type: ignore[arg-type]


async def test_the_output_cap_is_what_the_money_pays_for(world: World) -> None:
    async with home(world).open(by_turn(says("ok", 20)), output_tokens_max=1_000) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(NANO // 2)])
        pid = await kernel.spawn(world.program("p"), account="ann")
        await kernel.wait(pid, 10)
        request = world.asked[0]
        shown = (await kernel.show(pid))["messages"]
        assert len(shown) == 3
        cap = request.output_tokens_max
        assert 16 <= cap < 130, "half a dollar, less the input, at 4 dollars a thousand tokens"
        view = await kernel.account("ann")
        assert view.posted_nano == 10 * NANO // 1_000 + 20 * 4 * NANO // 1_000 == (await kernel.show(pid))["cost_nano"]
        assert (view.held_nano, view.overrun_nano, view.currency) == (0, 0, "usd")
        [row] = await kernel.meter()
        assert (row.cost_nano, row.currency) == (view.posted_nano, "usd")


async def test_money_that_is_used_up_opens_the_breaker_and_a_top_up_closes_it(world: World) -> None:
    async with home(world).open(by_turn(says("ok", 20))) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(NANO // 50, "month")])
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "breaker: the limit of account ann (0.02 usd a month)")
        await kernel.topup("ann", nano=NANO)
        await world.until_state(kernel, pid, "EXITED")


async def test_a_bill_above_the_hold_is_an_overrun_in_money_too(world: World) -> None:
    async with home(world).open(by_turn(Reply("ok", usage=Usage(10, 0, 5_000))), output_tokens_max=100) as kernel:
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(NANO)])
        await kernel.wait(await kernel.spawn(world.program("p"), account="ann"), 10)
        view = await kernel.account("ann")
        assert view.posted_nano + view.overrun_nano == 20_010 * NANO // 1_000
        assert view.posted_nano <= NANO
        assert [limit.left for limit in view.limits] == [0]
        stopped = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, stopped, "STOPPED", "breaker")


async def test_an_unknown_price_is_refused_under_a_limit_of_money_only(world: World) -> None:
    home(world, "")
    remote = '[engines.scripted]\nkind = "openai"\nurl = "https://models.invalid/v1"\nmodel = "nobody-knows"\n'
    (world.folder / "home" / "mains.toml").write_text(remote)
    async with world.open(by_turn(says("ok"))) as kernel:
        free = await kernel.spawn(world.program("p"))
        assert (await kernel.wait(free, 10)).exit_code == 0, "no limit of money: it is counted in tokens"
        await kernel.account_add("ann")
        await kernel.budget_set("ann", [money(NANO)])
        pid = await kernel.spawn(world.program("p"), account="ann")
        await world.until_state(kernel, pid, "STOPPED", "error")
        reason = (await kernel.outcome(pid)).reason
        assert "nobody-knows has no known price, and the limit of account ann (1 usd) is of money" in reason
        assert "`mains account set ann --unknown-price allow`" in reason
        await kernel.account_add("bob", under="ann", unknown_price="allow")
        below = await kernel.spawn(world.program("p"), account="bob")
        await world.until_state(kernel, below, "STOPPED", "error")
        assert (await kernel.account_set("ann", unknown_price="allow")).unknown_price == "allow"
        for each in (pid, below):
            await kernel.signal(each, mains.Signal.CONT)
            await world.until_state(kernel, each, "EXITED")
        assert kernel.journal.rows("account_sums", 0)[0][2:4] == (0, 0)


NIGHT = """currency = "usd"
input = 1000
output = 4000
zone = "UTC"
windows = [{ name = "night", from = "22:00", to = "06:00", input = 500, output = 2000 }]"""


async def test_batch_work_waits_for_its_hour_and_not_for_ever(world: World) -> None:
    world.clock.jump(4 * HOUR_MS)  # 12:00 UTC
    async with home(world, NIGHT).open(by_turn(says("ok", 10)), batch_wait_s=6 * 3_600) as kernel:
        now = await kernel.spawn(world.program("p"))
        assert (await kernel.wait(now, 10)).exit_code == 0, "only batch work waits"
        early = await kernel.spawn(world.program("p"), band="batch")
        await world.until_state(kernel, early, "EXITED")
        assert await _costs(kernel, early) == 50 * NANO // 1_000, "the night is too far away to be waited for"
        world.clock.jump(5 * HOUR_MS)
        late = await kernel.spawn(world.program("p"), band="batch")
        await world.until_state(kernel, late, "WAITING", "timer: batch work waits for a cheaper hour")
        world.clock.advance(5 * HOUR_MS)
        await world.until_state(kernel, late, "EXITED")
        assert await _costs(kernel, late) == 25 * NANO // 1_000
        assert sum(row.off_peak_saved_nano for row in await kernel.meter()) == 25 * NANO // 1_000


async def _costs(kernel: Desk, pid: int) -> int:
    cost: int = (await kernel.show(pid))["cost_nano"]
    return cost


async def test_what_the_cache_saved_is_on_the_meter(world: World) -> None:
    home(world, PRICE + "\ncache_read = 100")
    async with world.open(by_turn(Reply("ok", usage=Usage(100, 80, 10)))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p"), budget=2_000), 10)
        [row] = await kernel.meter()
        assert row.cost_nano == (20 + 8 + 40) * NANO // 1_000
        assert row.cache_saved_nano == 72 * NANO // 1_000


async def test_a_tariff_is_pinned_and_the_currency_stays(tmp_path: Path) -> None:
    world = home(World(tmp_path))
    async with world.open(by_turn(says("ok", 10))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p")), 10)
    home(world, "input = 7\noutput = 7")
    async with world.open(by_turn(says("ok", 10))) as kernel:
        await kernel.wait(await kernel.spawn(world.program("p")), 10)
        rows = kernel.journal.rows("entry_all")
        assert len({row[1] for row in rows}) == 2
        assert [kernel.journal.rows("tariff_get", number) != [] for number in (1, 2)] == [True, True]
    home(world, PRICE, 'currency = "eur"')
    with pytest.raises(ConfigError, match="the ledger counts in usd, and"):
        async with world.open(by_turn(says("ok"))):
            pass
