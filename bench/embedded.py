"""Tokens a second through Mains on the embedded engine, 1 and 4 at once, against the same requests sent straight to it.

Both sides use one and the same child process: Mains runs a process for each prompt (spawn, hold, call, settle, exit,
wait), the rival posts the very body that the engine would post to the child's HTTP server and reads the stream. Every
prompt begins with a number of its own, so that neither side finds the other's prompt in the cache; numbers have equally
many digits, and sampling is greedy. Sides alternate, and each goes first in every other round, so that drift cancels.

Not run where xllamacpp or the model's file is missing: `mains engine fetch` gets it.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec

import mains
from bench import kernel, machine
from bench.report import Figure, Report, at_least
from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.engines.llama_body import plan
from mains.errors import ConfigError, KernelPanic
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Request, Sampling, Usage

GOAL_PERCENT = 95.0
_AT_ONCE = (1, 4)
_CAP = 64  # output tokens of a call
_SYSTEM = "You are a patient storyteller. You tell long stories and never hurry."
_PROGRAM = f"""---
name: teller
description: tells a story
max_tokens: {_CAP}
temperature: 0
---
{_SYSTEM}
"""
Compared = tuple[list[Figure], str]
_Ask = Callable[[str], Awaitable[Usage]]


class Size(msgspec.Struct, frozen=True):
    """Prompts of each worker in a round, and rounds."""

    prompts: int
    rounds: int


FULL = Size(4, 6)
QUICK = Size(1, 1)


def _prompts() -> Iterator[str]:
    for number in itertools.count(10_001):
        yield f"{number} is the number of a house by the sea. Tell a long story about the people who live there."


class Direct:
    """The rival: a client of the child's HTTP server that does nothing else."""

    def __init__(self, engine: LlamaEngine, session: aiohttp.ClientSession) -> None:
        self._engine = engine
        self._session = session

    async def ask(self, prompt: str) -> Usage:
        """One call."""
        server = await self._engine._server.ready()
        messages = (Message("system", _SYSTEM), Message("user", prompt))
        request = Request(messages, _CAP, sampling=Sampling(temperature=0))
        headers = {**server.headers, "Content-Type": "application/json"}
        body = plan(request).body(_CAP, "")
        async with self._session.post(f"{server.url}/v1/chat/completions", data=body, headers=headers) as response:
            data = await response.read()
        *_, last = (line for line in data.splitlines() if line.startswith(b"data: {"))
        usage = msgspec.json.decode(last[6:])["usage"]
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return Usage(usage["prompt_tokens"], cached, usage["completion_tokens"])


class Through:
    """Mains: a process for each prompt."""

    def __init__(self, desk: Desk, program: Path) -> None:
        self._desk = desk
        self._program = program

    async def ask(self, prompt: str) -> Usage:
        """One process, from spawn to exit."""
        pid = await self._desk.spawn(self._program, {"prompt": prompt})
        outcome = await self._desk.wait(pid)
        if outcome.exit_code != 0:
            raise KernelPanic(f"process {pid}: {outcome.reason}")
        return outcome.usage


class Side:
    """One side of the comparison: its rate in each round, and what all its calls used."""

    def __init__(self, ask: _Ask) -> None:
        self._ask = ask
        self.rates: list[float] = []
        self.used: list[Usage] = []

    async def round(self, at_once: int, each: int, prompts: Iterator[str]) -> None:
        """So many workers at once, each with so many prompts, one after the other."""

        async def work() -> list[Usage]:
            return [await self._ask(next(prompts)) for _ in range(each)]

        start = time.perf_counter()
        used = sum(await asyncio.gather(*(work() for _ in range(at_once))), [])
        self.rates.append(sum(usage.output_tokens for usage in used) / (time.perf_counter() - start))
        self.used += used

    @property
    def per_call(self) -> str:
        """Means of a call: both sides must have read and written about the same."""
        read, cached, wrote = (
            statistics.mean(getattr(usage, field) for usage in self.used) for field in Usage.__struct_fields__
        )
        return f"read {read:.1f} tokens ({cached:.1f} cached), wrote {wrote:.1f}"


async def _compare(asks: tuple[_Ask, _Ask], at_once: int, size: Size, prompts: Iterator[str]) -> Compared:
    for ask in asks:  # every slot has seen the system message before anything is measured
        await Side(ask).round(at_once, 1, prompts)
    ours, straight = map(Side, asks)
    for number in range(size.rounds):
        for side in (ours, straight) if number % 2 else (straight, ours):
            await side.round(at_once, size.prompts, prompts)
    percent = statistics.median(100 * mine / other for mine, other in zip(ours.rates, straight.rates, strict=True))
    figures = [
        Figure(f"through Mains, {at_once} at once", statistics.median(ours.rates), "tokens/s"),
        Figure(f"straight, {at_once} at once", statistics.median(straight.rates), "tokens/s"),
        at_least(f"Mains / straight, {at_once} at once", percent, "%", GOAL_PERCENT),
    ]
    return figures, f"a call, {at_once} at once: Mains {ours.per_call}; straight {straight.per_call}"


async def _measure(folder: Path, size: Size) -> list[Compared]:
    spec = EngineSpec(name="llama", kind="llama", slots=max(_AT_ONCE), context_tokens=8_192)
    engine = LlamaEngine(spec, folder / "llama.log", mains.Settings())
    program = folder / "teller.md"
    program.write_text(_PROGRAM)
    prompts = _prompts()
    async with (
        mains.open(folder / "home", engines=[engine]) as desk,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        asks = Through(desk, program).ask, Direct(engine, session).ask
        return [await _compare(asks, at_once, size, prompts) for at_once in _AT_ONCE]


def main(quick: bool) -> Report:
    """1 and 4 at once."""
    size = QUICK if quick else FULL
    try:
        import xllamacpp  # noqa: F401 - is it there?

        from mains.engines import model_file

        model_file.find()
    except (ImportError, ConfigError) as error:
        return Report("embedded", (), (f"not measured: {error}",))
    with machine.scratch() as folder:
        compared = kernel.run(_measure(folder, size))
        fsync = Figure("fsync", machine.fsync_us(folder), "us")
    figures = [figure for each, _ in compared for figure in each]
    note = f"median of {size.rounds} alternating rounds, {size.prompts} prompts for each of those at once, at most"
    notes = (f"{note} {_CAP} tokens a reply", *(per_call for _, per_call in compared))
    return Report("embedded", (*figures, fsync), notes)
