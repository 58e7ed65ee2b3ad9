"""Tokens a second through Mains on the embedded engine, 1 and 4 at once, against the same requests sent straight to it.

Mains runs a process for each prompt: spawn, hold, call, settle, exit, wait. The rival posts the very body that the
engine would post to the child's HTTP server, and reads the stream. Each side of each round has a child process of its
own, warmed by one call and empty of everything else, so that both may be given the same prompts and neither finds them
in the cache; sampling is greedy, so that both get the same replies. Sides alternate, and each goes first in every other
round: drift of the machine cancels.

Not run where xllamacpp or the model's file is missing: `mains engine fetch` gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
_Ask = Callable[[str], Awaitable[Usage]]


class Size(msgspec.Struct, frozen=True):
    """Prompts of each worker in a round, and rounds."""

    prompts: int
    rounds: int


FULL = Size(4, 8)
QUICK = Size(1, 1)


def _engine(folder: Path) -> LlamaEngine:
    spec = EngineSpec(name="llama", kind="llama", slots=max(_AT_ONCE), context_tokens=8_192)
    return LlamaEngine(spec, folder / "llama.log", mains.Settings())


@contextlib.asynccontextmanager
async def _straight(folder: Path) -> AsyncIterator[_Ask]:
    """The rival: a client of the child's HTTP server that does nothing else."""
    engine = _engine(folder)
    server = await engine._server.ready()
    headers = {**server.headers, "Content-Type": "application/json"}

    async def ask(prompt: str) -> Usage:
        messages = (Message("system", _SYSTEM), Message("user", prompt))
        body = plan(Request(messages, _CAP, sampling=Sampling(temperature=0))).body(_CAP, "")
        async with session.post(f"{server.url}/v1/chat/completions", data=body, headers=headers) as response:
            data = await response.read()
        *_, last = (line for line in data.splitlines() if line.startswith(b"data: {"))
        usage = msgspec.json.decode(last.removeprefix(b"data: "))["usage"]
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return Usage(usage["prompt_tokens"], cached, usage["completion_tokens"])

    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            yield ask
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def _through(folder: Path) -> AsyncIterator[_Ask]:
    """Mains: a process for each prompt."""
    program = folder / "teller.md"
    program.write_text(_PROGRAM)
    async with mains.open(folder / "home", engines=[_engine(folder)]) as desk:

        async def ask(prompt: str) -> Usage:
            outcome = await desk.wait(await desk.spawn(program, {"prompt": prompt}))
            if outcome.exit_code != 0:
                raise KernelPanic(f"process {outcome.pid}: {outcome.reason}")
            return outcome.usage

        yield ask


class Side:
    """One side of the comparison: its rate in each round, and what its calls used."""

    def __init__(self, asking: Callable[[Path], contextlib.AbstractAsyncContextManager[_Ask]]) -> None:
        self._asking = asking
        self.rates: list[float] = []
        self.used: list[Usage] = []

    async def round(self, folder: Path, at_once: int, prompts: list[str]) -> None:
        """So many workers at once; each takes the next prompt when it has its reply."""
        left = iter(prompts)

        async def work() -> list[Usage]:
            return [await ask(prompt) for prompt in left]

        async with self._asking(folder) as ask:
            await ask("Hello.")
            start = time.perf_counter()
            used = [*itertools.chain(*await asyncio.gather(*(work() for _ in range(at_once))))]
            self.rates.append(sum(usage.output_tokens for usage in used) / (time.perf_counter() - start))
        self.used += used

    @property
    def per_call(self) -> str:
        """Means of a call: both sides must have read and written the same."""
        read, cached, wrote = (
            statistics.mean(getattr(usage, field) for usage in self.used) for field in Usage.__struct_fields__
        )
        return f"read {read:.1f} tokens ({cached:.1f} cached), wrote {wrote:.1f}"


async def _compare(at_once: int, size: Size) -> tuple[list[Figure], str]:
    ours, straight = Side(_through), Side(_straight)
    numbers = itertools.count(101)
    for number in range(size.rounds):
        prompts = [
            f"Tell a long story about the people who live in the house number {next(numbers)} by the sea."
            for _ in range(size.prompts * at_once)
        ]
        for side in (ours, straight) if number % 2 else (straight, ours):
            with machine.scratch() as folder:
                await side.round(folder, at_once, prompts)
    percent = statistics.median(100 * mine / other for mine, other in zip(ours.rates, straight.rates, strict=True))
    figures = [
        Figure(f"through Mains, {at_once} at once", statistics.median(ours.rates), "tokens/s"),
        Figure(f"straight, {at_once} at once", statistics.median(straight.rates), "tokens/s"),
        at_least(f"Mains / straight, {at_once} at once", percent, "%", GOAL_PERCENT),
    ]
    return figures, f"a call, {at_once} at once: Mains {ours.per_call}; straight {straight.per_call}"


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
        fsync = Figure("fsync", machine.fsync_us(folder), "us")
    compared = [kernel.run(_compare(at_once, size)) for at_once in _AT_ONCE]
    figures = [figure for each, _ in compared for figure in each]
    note = f"median of {size.rounds} alternating rounds, {size.prompts} prompts for each of those at once, at most"
    notes = (f"{note} {_CAP} tokens a reply", *(per_call for _, per_call in compared))
    return Report("embedded", (*figures, fsync), notes)
