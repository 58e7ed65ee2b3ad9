"""What every contestant's program shares: the job that it is given, the crowd of agents, the tool, the measurement.

Runs in the rivals' environment too, so it needs nothing but the standard library.

    python -m bench.contest.NAME '{"job": "speed", ...}'     prints its result as JSON

A **turn** is a model call and all that follows from it; an agent that counts to five makes six. Jobs:

    speed     so many agents at once, one after another, to their ends: turns a second, CPU a turn, bytes a turn
    waiting   so many agents that all wait for the model: resident memory of each
    cap       so many agents at once under one cap on their calls: who ends, who is refused (the upstream counts calls)
    life      agents 1 to N until all have ended, over what an earlier life left in the folder: for kill -9
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FINAL = "counted to the end"
PROSE = "You count. Call the tool `count` as you are told, then say that you are done."
_LOOK_S = 0.02
_HELD_TIMEOUT_S = 120.0
CAP_LATENCY_MS = 1_000  # of an answer under the cap, at most: calls overlap as they do with real models
CAP_CALLS = 37
CALL_PRICE = "0.01"  # usd, for contestants whose cap is one of money
REFUSED = "refused by the cap"
_BEGIN_AT_ONCE = 50  # agents that start to wait: the peak of a start is not what a waiting agent costs


@dataclass(frozen=True)
class Job:
    """What to do. `mode` is the contestant's own choice (a durability mode, say)."""

    job: str
    folder: str
    port: int
    turns: int
    at_once: int
    agents: int
    mode: str = ""

    @property
    def url(self) -> str:
        """Of the endpoint, as OpenAI clients want it."""
        paths = {"waiting": "hold", "cap": f"{self.turns}@{CAP_LATENCY_MS}"}
        return f"http://127.0.0.1:{self.port}/{paths.get(self.job, self.turns)}/v1"

    @property
    def database(self) -> Path:
        """Where a contestant with one file keeps it."""
        return Path(self.folder) / "agents.db"


@dataclass(frozen=True)
class Speed:
    """A measured crowd. CPU is of this program with all its threads; bytes are of all that is on the disk."""

    turns: int
    span_s: float
    cpu_s: float
    bytes_a_turn: float


@dataclass
class Ended:
    """How the agents of a life ended; `notes` are the contestant's own."""

    finished: int = 0
    lost: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str) -> None:
        """One more of this."""
        self.notes[what] = self.notes.get(what, 0) + 1


RunAgent = Callable[[str], Coroutine[Any, Any, str]]
Open = Callable[[Job], AbstractAsyncContextManager[RunAgent]]
Live = Callable[[Job], Awaitable[Ended]]


def record(folder: str, agent: str, n: int) -> str:
    """The tool of the kill test: an effect that must not happen twice, on the disk when this returns."""
    with (Path(folder) / "effects").open("ab", buffering=0) as file:
        file.write(f"{agent} {n}\n".encode())
        os.fsync(file.fileno())
    return f"counted {n}"


def count(agent: str, n: int) -> str:
    """The tool of the other jobs: it costs nothing."""
    return f"counted {n} for {agent}"


async def crowd(run: RunAgent, first: int, agents: int, at_once: int) -> None:
    """Run agents `first`, `first` + 1, ...: so many at once, a new one when one has ended."""
    numbers = iter(range(first, first + agents))

    async def one_after_another() -> None:
        for number in numbers:
            if (said := await run(f"agent-{number}")) != FINAL:
                raise RuntimeError(f"agent-{number} ended with {said!r}")

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))


async def everybody(job: Job, to_the_end: Callable[[str], Awaitable[None]]) -> None:
    """All agents of a life at once."""
    await asyncio.gather(*(to_the_end(f"agent-{number}") for number in range(1, job.agents + 1)))


def disk_bytes(folder: str) -> int:
    """The size of all databases in the folder, with what still stands in their write-ahead logs moved into them."""
    databases = [path for path in Path(folder).rglob("*") if path.is_file() and _is_database(path)]
    for path in databases:
        connection = sqlite3.connect(path, timeout=30)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    return sum(path.stat().st_size for path in databases)


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


async def speed(opened: Open, job: Job) -> Speed:
    """As many agents as can be at once to warm up, then those that are measured."""
    async with opened(job) as run:
        await crowd(run, 0, job.at_once, job.at_once)
    before = disk_bytes(job.folder)
    async with opened(job) as run:
        await crowd(run, 10_000_000, job.at_once, job.at_once)
        gc.collect()
        start, cpu = time.perf_counter(), time.process_time()
        await crowd(run, job.at_once, job.agents, job.at_once)
        span_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    turns = job.agents * (job.turns + 1)
    stored = turns + job.at_once * (job.turns + 1)
    return Speed(turns, span_s, cpu_s, (disk_bytes(job.folder) - before) / stored)


async def cap(opened: Open, job: Job) -> Ended:
    """All agents at once under one cap; `refused` counts those that the cap stopped. Raises RuntimeError for others."""
    ended = Ended()
    async with opened(job) as run:

        async def to_the_end(agent: str) -> None:
            said = await run(agent)
            if said not in (FINAL, REFUSED):
                raise RuntimeError(f"{agent} ended with {said!r}")
            ended.finished += said == FINAL
            if said == REFUSED:
                ended.note("refused")

        await everybody(job, to_the_end)
    return ended


def rss_bytes() -> int:
    """Resident memory of this program, after a collection, with free memory given back."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        ctypes.CDLL(None).malloc_trim(0)
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a Mac gives the peak, in bytes


def ask(port: int, what: str) -> dict[str, int]:
    """`state` or `release` of the upstream."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=30) as response:
        found: dict[str, int] = json.load(response)
        return found


async def until_held(port: int, wanted: int) -> None:
    """Return when so many calls are held. Raises TimeoutError."""
    async with asyncio.timeout(_HELD_TIMEOUT_S):
        while (await asyncio.to_thread(ask, port, "state"))["held"] < wanted:  # noqa: ASYNC110 - another process tells nobody
            await asyncio.sleep(_LOOK_S)


async def waiting(opened: Open, job: Job) -> dict[str, float]:
    """Memory of `agents` agents of which `at_once` calls are held, above that of the same program after one agent."""
    async with opened(job) as run:
        await _held_crowd(run, job, 10_000_000, 10, 10)
        bare = rss_bytes()
        full = await _held_crowd(run, job, 1, job.agents, job.at_once)
    return {"bare": bare, "each": (full - bare) / job.agents}


async def _held_crowd(run: RunAgent, job: Job, first: int, agents: int, held: int) -> int:
    """Start agents, wait until `held` calls are held, look at the memory, and let all end."""
    begun: list[asyncio.Task[str]] = []
    for number in range(agents):
        begun.append(asyncio.create_task(run(f"agent-{first + number}")))
        if len(begun) % _BEGIN_AT_ONCE == 0:
            await until_held(job.port, min(len(begun), held))
    ends = asyncio.gather(*begun)
    await until_held(job.port, held)
    await asyncio.sleep(1)  # whoever does not call goes to rest
    found = rss_bytes()
    while not ends.done():
        await asyncio.to_thread(ask, job.port, "release")
        await asyncio.wait([ends], timeout=_LOOK_S)
    await ends
    return found


def main(opened: Open, live: Live | None = None, loop_factory: Callable[[], Any] | None = None) -> None:
    """Do the job on the command line and print the result."""
    job = Job(**json.loads(sys.argv[1]))

    async def work() -> object:
        if job.job == "speed":
            return asdict(await speed(opened, job))
        if job.job == "cap":
            return asdict(await cap(opened, job))
        if job.job == "waiting":
            return await waiting(opened, job)
        if live is None:
            raise SystemExit("this contestant has no kill test")
        return asdict(await live(job))

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        print(json.dumps(runner.run(work())), flush=True)
