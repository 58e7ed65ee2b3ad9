"""The count of `bench.recount` can fail: a violation that is planted in a copy of a good database is named."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from bench import metered, recount
from bench.bad_engine import FINAL, TURNS, fate

import mains
from mains.errors import LimitError
from mains.kernel.billing import Budget
from mains.kernel.ports import Usage

LIMIT = 100


@pytest.fixture
async def good(tmp_path: Path) -> Path:
    """A home with a hold of each fate below a limit of tokens and one of money a day, and a top-up."""
    async with mains.open(metered.prepare(tmp_path, 9)) as desk:
        await desk.account_add("team", zone="Europe/Berlin")
        await desk.budget_set("team", [Budget("tokens", "total", LIMIT), Budget("money", "day", 10**6)])

        async def hold(key: str) -> int:
            taken = await desk.hold("team", 20, 20, engine="http", model="m", key=key, timeout_s=60)
            return taken.id

        await desk.settle(await hold("less"), Usage(input_tokens=10, output_tokens=5))
        await desk.void(await hold("void"))
        await desk.settle(await hold("more"), Usage(input_tokens=20, output_tokens=45))
        with pytest.raises(LimitError):
            await hold("none")
        await desk.topup("team", tokens=50)
        await desk.settle(await hold("after"), None)
    return tmp_path / "home" / "mains.db"


_LIMIT = "UPDATE event SET body = CAST(replace(body, '\"most\":{}', '\"most\":{}') AS BLOB) WHERE kind = 'limited'"
PLANTED = {
    "granted": _LIMIT.format(100, 39),
    "granted: hold 4": _LIMIT.format(150, 119),
    "overrun": "UPDATE entry SET kind = 'posted' WHERE kind = 'overrun'",
    "zero: entry": "UPDATE entry SET credit = 0 WHERE id = (SELECT max(id) FROM entry)",
    "zero: held": "UPDATE account SET held = held + 1 WHERE id = -1",
    "zero: nano_posted": "UPDATE account SET nano_posted = nano_posted + 1 WHERE id = 0",
    "counters": "UPDATE account SET posted = posted - 1 WHERE name = 'team'",
    "ends: hold 1 is still": "UPDATE hold SET state = 'dispatched' WHERE id = 1",
    "ends: hold 1 is posted, its entries": "DELETE FROM entry WHERE hold = 1 AND kind = 'posted'",
    "ends: hold 2": "UPDATE hold SET state = 'posted' WHERE id = 2",
    "ends: hold 3": "INSERT INTO entry (hold, kind, debit, credit, tokens, at_ms) "
    "SELECT hold, kind, debit, credit, tokens, at_ms FROM entry WHERE hold = 3 AND kind = 'released'",
}


async def test_a_good_database_has_none(good: Path) -> None:
    assert recount.recount(good) == []
    assert recount.charged(good) == {"posted": 3, "voided": 1, "overruns": 1, "tokens": 15 + 65 + 40}


@pytest.mark.parametrize("named", PLANTED)
async def test_what_is_planted_is_named(named: str, good: Path, tmp_path: Path) -> None:
    copy = tmp_path / "planted.db"
    shutil.copy(good, copy)
    with contextlib.closing(sqlite3.connect(copy)) as connection, connection:
        assert connection.execute(PLANTED[named]).rowcount > 0
    faults = recount.recount(copy)
    assert any(fault.startswith(named) for fault in faults), faults


async def test_a_process_that_failed_is_lost(tmp_path: Path) -> None:
    database = tmp_path / "home" / "mains.db"
    async with mains.open(metered.prepare(tmp_path, 9)) as desk:
        await desk.spawn(tmp_path / "looker.md", paused=True)
    assert [fault for fault in recount.recount(database) if fault.startswith("lost: process 1 is STOPPED (paused)")]


def test_windows_begin_on_the_clock_of_their_zone() -> None:
    at_ms = 1_774_747_800_000  # 2026-03-29 01:30 UTC: summer time has begun in Berlin half an hour ago
    assert recount.window_start_ms("day", "Europe/Berlin", at_ms) == 1_774_738_800_000
    assert recount.window_start_ms("week", "Europe/Berlin", at_ms) == 1_774_220_400_000
    assert recount.window_start_ms("month", "America/New_York", at_ms) == 1_772_341_200_000
    assert recount.window_start_ms("total", "", at_ms) == 0


def test_the_bad_engine_is_as_bad_as_it_says() -> None:
    fates = [fate(f"{pid}-{turn}-{attempt}") for pid in range(1, 1_001) for turn in range(1, 4) for attempt in (1, 2)]
    shares = {kind: fates.count(kind) / len(fates) for kind in set(fates)}
    wanted = {"broken": 1 / 3, "more": 1 / 20, "silent": 1 / 10, "late": 1 / 10, "plain": 25 / 60}
    assert shares == pytest.approx(wanted, rel=0.15)
    assert TURNS > 1
    assert FINAL
