"""Mains under a cap: one account with a limit of money, an engine with a price for each call, and all processes on it.

Who is refused stands STOPPED (breaker); after the calls are counted, a top-up lets all go on where they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

import mains
from bench.contest import contestant, mains_agents
from bench.contest.contestant import CALL_PRICE, CAP_CALLS, FINAL, Ended, Job
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk

_PRICED = """
[engines.http.price]
input = 0
output = 0
request = {price}
"""
_NANO = int(Decimal(CALL_PRICE) * 10**9)
_STOPPED = "STOPPED"
_PATIENCE_S = 60
_LOOK_S = 0.02


async def _capped(job: Job) -> dict[str, Any]:
    """The crowd under the cap, then the top-up: how each ended at first, and at last."""
    home = Path(job.folder) / "home"
    home.mkdir()
    configuration = mains_agents.CONFIGURATION.format(url=job.url, slots=job.at_once, turns=job.turns + 2)
    (home / "mains.toml").write_text(
        configuration.replace("\n[settings]", _PRICED.format(price=CALL_PRICE) + "\n[settings]")
    )
    async with mains.open(home, devices=[mains_agents.device(job)]) as desk:
        await desk.account_add("team")
        await desk.budget_set("team", [Budget("money", "total", CAP_CALLS * _NANO)])
        pids = await _spawned(desk, job)
        ended = await _ends(desk, pids)
        calls = (await asyncio.to_thread(contestant.ask, job.port, "state"))["calls"]
        await desk.topup("team", nano=job.agents * (job.turns + 1) * _NANO)
        await _all_ended(desk)
        at_last = await _ends(desk, pids)
    return asdict(ended) | {"calls": calls, "after_top_up": at_last.finished}


async def _all_ended(desk: Desk) -> None:
    """Return when none is left (a top-up wakes them one after another), or when that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while await desk.ps():  # noqa: ASYNC110 - nobody tells that the last one has ended
                await asyncio.sleep(_LOOK_S)


async def _spawned(desk: Desk, job: Job) -> list[int]:
    program = mains_agents.program_file(job)
    agents = [f"agent-{number}" for number in range(1, job.agents + 1)]
    return await asyncio.gather(*(desk.spawn(program, {"agent": agent}, account="team") for agent in agents))


async def _ends(desk: Desk, pids: list[int]) -> Ended:
    """How all ended, or stand. Raises RuntimeError for what a cap does not explain."""
    ended = Ended()
    for outcome in await asyncio.gather(*map(desk.wait, pids)):
        if outcome.state == _STOPPED and outcome.reason.startswith("breaker"):
            ended.note("refused")
        elif outcome.result == FINAL:
            ended.finished += 1
        else:
            raise RuntimeError(f"process {outcome.pid}: {outcome.state} ({outcome.reason})")
    return ended


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_capped(Job(**json.loads(sys.argv[1]))))), flush=True)
