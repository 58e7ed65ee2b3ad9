"""One life of a kernel with many processes on one small account, at an engine that behaves badly. It may be killed.

    python -m bench.metered '{"folder": ..., "port": ..., ...}'

Two accounts, one below the other, with limits in both units and in windows; the lower one has room for so many calls of
known size. When every process has ended or stands with an open breaker, it looks whether anything is lost, tops up, and
goes on. Prints `up` when it has booted, and at its end what it saw, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import msgspec
import uvloop

import mains
from bench.bad_engine import FINAL
from mains.kernel.billing import Budget
from mains.kernel.desk import Desk
from mains.kernel.ports import ProcessView

OUTPUT_TOKENS = 64
INPUT_NANO, OUTPUT_NANO = 1_000, 2_000  # for a token
PROGRAM = f"""---
name: looker
description: looks a few times, then ends
tools: [receive]
max_tokens: {OUTPUT_TOKENS}
---
Look for messages a few times, then end.
"""
CONFIGURATION = """default_engine = "http"

[engines.http]
kind = "openai"
url = "http://127.0.0.1:{port}/v1"
model = "looking"
slots = 64

[engines.http.price]
input = 1
output = 2

[settings]
model_attempts_max = 60
retry_base_ms = 20
retry_ceiling_ms = 100
breaker_failures = 1000
"""
_LOOK_S = 0.03
_PATIENCE_S = 120.0  # for all to come to rest: no wake-up is lost
_OWN_TOPUPS = 3  # of the same size as the first limit; later ones grow, so that it comes to an end


class Life(msgspec.Struct, frozen=True):
    """What to do. `size`: tokens that a first call holds; `ever`: begin anew when all have ended, until killed."""

    folder: str
    port: int
    processes: int
    calls: int
    size: int
    ever: bool = False
    rests: int = 0  # how often all come to rest before it stops by itself; 0: until all have ended


class Told(msgspec.Struct):
    """What a life saw: how many came to their end, how often all stood still, and what should not have been."""

    ended: int = 0
    rests: int = 0
    wrong: list[str] = []


def nano(size: int) -> int:
    """What a call of this size costs."""
    return (size - OUTPUT_TOKENS) * INPUT_NANO + OUTPUT_TOKENS * OUTPUT_NANO


def prepare(folder: Path, port: int) -> Path:
    """A home that knows the engine, and the program's file beside it."""
    home, program = folder / "home", folder / "looker.md"
    home.mkdir(exist_ok=True)
    (home / "mains.toml").write_text(CONFIGURATION.format(port=port))
    program.write_text(PROGRAM)
    return home


async def size_of_a_call(folder: Path) -> int:
    """The tokens that the first call of the program holds, in a home of its own."""
    home = prepare(folder, 9)
    async with mains.open(home) as desk:
        p = desk.journal.process(await desk.spawn(folder / "looker.md", paused=True))
        assert p is not None
        return int(p.frame_tokens + p.reserve_tokens + p.output_tokens_max)


async def live(life: Life) -> Told:
    """Boot, find or make accounts and processes, and let all come to their end by top-ups."""
    folder, told = Path(life.folder), Told()
    async with mains.open(prepare(folder, life.port)) as desk:
        print("up", flush=True)
        await _accounts(desk, life)
        while not life.rests or told.rests < life.rests:
            standing = await _at_rest(desk, life)
            told.wrong += [f"{p.pid} is {p.state} ({p.reason})" for p in standing if not _breaker(p)]
            if not standing and not life.ever:
                break
            told.rests += bool(standing)
            if standing and told.rests != life.rests:
                calls = life.calls * max(1, told.rests - _OWN_TOPUPS)
                await desk.topup("team", tokens=calls * life.size)
                await desk.topup("acme", nano=calls * nano(life.size))
        ended = [p for p in await desk.ps(every=True) if p.state == "EXITED"]
        told.wrong += [f"{p.pid} ended otherwise" for p in ended if (await desk.outcome(p.pid)).result != FINAL]
        told.ended = len(ended)
    return told


async def _accounts(desk: Desk, life: Life) -> None:
    """Made in the first life; a later one may find only some of them."""
    for name, under in (("acme", "home"), ("team", "acme")):
        with contextlib.suppress(mains.MainsError):  # it is there
            await desk.account_add(name, under=under, zone="Europe/Berlin")
    first = [
        ("team", Budget("tokens", "total", life.calls * life.size)),
        ("acme", Budget("money", "month", life.calls * nano(life.size))),
        ("home", Budget("tokens", "day", 10**9)),
        ("home", Budget("money", "week", 10**15)),
    ]
    for account, budget in first:
        if all(
            (each.unit, each.window) != (budget.unit, budget.window) for each in (await desk.account(account)).limits
        ):
            await desk.budget_set(account, [budget])


async def _at_rest(desk: Desk, life: Life) -> list[ProcessView]:
    """Start who is missing; those that stand when nobody moves any more. Raises TimeoutError when that never comes."""
    known = len(await desk.ps(every=True))
    alive = len(await desk.ps())
    if known == 0 or (life.ever and not alive):
        wanted = known + life.processes
    else:
        wanted = -(-known // life.processes) * life.processes
    program = Path(life.folder) / "looker.md"
    await asyncio.gather(*(desk.spawn(program, key=f"p{n}", account="team") for n in range(wanted)))
    async with asyncio.timeout(_PATIENCE_S):
        while not all(map(_breaker, await desk.ps())):  # noqa: ASYNC110 - nobody tells of a standstill
            await asyncio.sleep(_LOOK_S)
    return await desk.ps()


def _breaker(p: ProcessView) -> bool:
    return p.state == "STOPPED" and p.reason.startswith("breaker")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(live(msgspec.json.decode(sys.argv[1], type=Life)))
    print(msgspec.json.encode(seen).decode(), flush=True)
