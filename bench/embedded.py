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
from mains.kernel.ports import Message, Request, Sampling

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
_Ask = Callable[[str], Awaitable[int]]


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

    async def ask(self, prompt: str) -> int:
        """The output tokens of one call."""
        server = await self._engine._server.ready()
        messages = (Message("system", _SYSTEM), Message("user", prompt))
        request = Request(messages, _CAP, sampling=Sampling(temperature=0))
        headers = {**server.headers, "Content-Type": "application/json"}
        body = plan(request).body(_CAP, "")
        async with self._session.post(f"{server.url}/v1/chat/completions", data=body, headers=headers) as response:
            data = await response.read()
        *_, last = (line for line in data.splitlines() if line.startswith(b"data: {"))
        return int(msgspec.json.decode(last[6:])["usage"]["completion_tokens"])


class Through:
    """Mains: a process for each prompt."""

    def __init__(self, desk: Desk, program: Path) -> None:
        self._desk = desk
        self._program = program

    async def ask(self, prompt: str) -> int:
        """The output tokens of one process, from spawn to exit."""
        pid = await self._desk.spawn(self._program, {"prompt": prompt})
        outcome = await self._desk.wait(pid)
        if outcome.exit_code != 0:
            raise KernelPanic(f"process {pid}: {outcome.reason}")
        return outcome.usage.output_tokens


async def _tokens_per_s(ask: _Ask, at_once: int, each: int, prompts: Iterator[str]) -> float:
    """So many workers at once, each with so many prompts, one after the other."""

    async def work() -> int:
        return sum([await ask(next(prompts)) for _ in range(each)])

    start = time.perf_counter()
    tokens = sum(await asyncio.gather(*(work() for _ in range(at_once))))
    return tokens / (time.perf_counter() - start)


async def _compare(sides: tuple[_Ask, _Ask], at_once: int, size: Size, prompts: Iterator[str]) -> list[Figure]:
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(size.rounds):
        for side in (0, 1) if number % 2 else (1, 0):
            rates[side].append(await _tokens_per_s(sides[side], at_once, size.prompts, prompts))
    percent = statistics.median(100 * mine / other for mine, other in zip(*rates, strict=True))
    return [
        Figure(f"through Mains, {at_once} at once", statistics.median(rates[0]), "tokens/s"),
        Figure(f"straight, {at_once} at once", statistics.median(rates[1]), "tokens/s"),
        at_least(f"Mains / straight, {at_once} at once", percent, "%", GOAL_PERCENT),
    ]


async def _measure(folder: Path, size: Size) -> list[Figure]:
    spec = EngineSpec(name="llama", kind="llama", slots=max(_AT_ONCE), context_tokens=8_192)
    engine = LlamaEngine(spec, folder / "llama.log", mains.Settings())
    program = folder / "teller.md"
    program.write_text(_PROGRAM)
    figures: list[Figure] = []
    prompts = _prompts()
    async with (
        mains.open(folder / "home", engines=[engine]) as desk,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        sides = Through(desk, program).ask, Direct(engine, session).ask
        for at_once in _AT_ONCE:
            for ask in sides:  # every slot has seen the system message before anything is measured
                await _tokens_per_s(ask, at_once, 1, prompts)
            figures += await _compare(sides, at_once, size, prompts)
    return figures


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
        figures = kernel.run(_measure(folder, size))
        figures.append(Figure("fsync", machine.fsync_us(folder), "us"))
    note = f"median of {size.rounds} alternating rounds, {size.prompts} prompts for each of those at once"
    return Report("embedded", tuple(figures), (f"{note}, at most {_CAP} tokens a reply",))
