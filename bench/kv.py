"""Rounds of 16 processes on 2 slots of the embedded engine, with and without files of what was read of each.

Each process has a prompt of its own of about 1,000 tokens and makes one call a round, a few tokens longer than the last
one, as after the result of a tool. Without files ("no swap") llama.cpp keeps what it read in its 2 slots and in its own
RAM cache, which is of the size that Mains gave it before there were files (256 MiB, too small for 16 such processes).
With files it is off. Measured: a round when all have been read once, and the first round after a new start of the
engine. Both sides get the same prompts in the same order, one side after the other.

The order of policies (first come first served, round robin, the kernel's scheduler) on this engine is the second part
(`policies`): it needs the kernel's lanes.

Not run where xllamacpp or the model's file is missing: `mains engine fetch` gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from bench import kernel, machine
from bench.report import Figure, Report, at_least
from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.errors import ConfigError
from mains.kernel.ports import Message, Request, Sampling
from mains.settings import Settings

GOAL = 8.0
SLOTS = 2
_CAP = 8  # output tokens of a call
_SYSTEM = Message("system", "You are a clerk.")


class Size(msgspec.Struct, frozen=True):
    """Processes, lines of each one's prompt (about 17 tokens each), and rounds that are measured."""

    processes: int
    lines: int
    rounds: int


FULL = Size(16, 60, 2)
QUICK = Size(4, 8, 1)


class Side:
    """One way to keep what was read."""

    def __init__(self, folder: Path, size: Size, *, swap: bool) -> None:
        self._folder = folder
        self._size = size
        self._swap = swap
        self._turns = 0
        self.cached = 0.0

    @contextlib.asynccontextmanager
    async def engine(self) -> AsyncIterator[LlamaEngine]:
        """A new start of the engine, ready for calls."""
        spec = EngineSpec(name="llama", kind="llama", model="small", slots=SLOTS, context_tokens=8_192)
        kv = self._folder / "kv" if self._swap else None
        made = LlamaEngine(spec, self._folder / "llama.log", Settings(), kv=kv)
        try:
            await made.complete(Request((_SYSTEM, Message("user", "Hello.")), 1), lambda _: None)
            yield made
        finally:
            await made.close()

    async def round(self, engine: LlamaEngine) -> float:
        """Every process makes a call, as many at once as there are slots; how long that takes, in seconds."""
        self._turns += 1
        left = iter(range(1, self._size.processes + 1))
        used = []

        async def work() -> None:
            for process in left:
                reply = await engine.complete(self._request(process), lambda _: None)
                used.append(reply.usage)

        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(SLOTS)))
        span_s = time.perf_counter() - begun
        read = [usage for usage in used if usage is not None]
        self.cached = sum(usage.cached_tokens for usage in read) / max(1, sum(usage.input_tokens for usage in read))
        return span_s

    def _request(self, process: int) -> Request:
        text = " ".join(
            f"Line {at} of file {process} names item {process * 7_919 + at * 31}." for at in range(self._size.lines)
        )
        messages = [_SYSTEM, Message("user", text)]
        for turn in range(1, self._turns):
            messages += [Message("assistant", f"Step {turn}."), Message("user", "Go on.")]
        return Request(tuple(messages), _CAP, sampling=Sampling(temperature=0.0), process=process, tenant=1)

    async def run(self) -> tuple[float, float]:
        """Seconds of a round (median), and of the first one after a new start."""
        async with self.engine() as engine:
            await self.round(engine)
            rounds = [await self.round(engine) for _ in range(self._size.rounds)]
        async with self.engine() as engine:
            return statistics.median(rounds), await self.round(engine)


async def _swap(folder: Path, size: Size) -> list[Figure]:
    """Part one: files against none."""
    figures: list[Figure] = []
    spans: list[tuple[float, float]] = []
    for name, swap in (("no swap", False), ("swap", True)):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        side = Side(place, size, swap=swap)
        spans.append(await side.run())
        figures += [
            Figure(f"a round, {name}", spans[-1][0], "s"),
            Figure(f"a round after a restart, {name}", spans[-1][1], "s"),
            Figure(f"of the prompts not read again, {name}", 100 * side.cached, "%"),
        ]
    (without_s, without_restarted_s), (with_s, with_restarted_s) = spans
    return [
        *figures,
        at_least("swap against none", without_s / with_s, "x", GOAL),
        at_least("swap against none, after a restart", without_restarted_s / with_restarted_s, "x", GOAL),
    ]


def main(quick: bool) -> Report:
    """Files against none."""
    size = QUICK if quick else FULL
    try:
        import xllamacpp  # noqa: F401 - is it there?

        from mains.engines import model_file

        model_file.find()
    except (ImportError, ConfigError) as error:
        return Report("kv", (), (f"not measured: {error}",))
    with machine.scratch() as folder:
        figures = kernel.run(_swap(folder, size))
    note = f"{size.processes} processes on {SLOTS} slots, median of {size.rounds} rounds, {_CAP} tokens a reply"
    return Report("kv", tuple(figures), (note,))
