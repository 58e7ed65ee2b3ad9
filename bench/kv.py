"""Rounds of 16 processes on 2 slots of the embedded engine, with and without files of what was read of each.

Each process has a prompt of its own of about 1,000 tokens and makes one call a round, a few tokens longer than the last
one, as after the result of a tool. Without files ("no swap") llama.cpp keeps what it read in its 2 slots and in its own
RAM cache, which is of the size that Mains gave it before there were files (256 MiB, too small for 16 such processes).
With files it is off. Measured: a round when all have been read once, and the first round after a new start of the
engine. Both sides get the same prompts in the same order; their rounds alternate.

The order of policies on this engine is a benchmark of its own: `bench/policies.py`.

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
        folder.mkdir()
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


async def _swap(folder: Path, size: Size) -> list[Figure]:
    """Files against none. Sides alternate, so that drift of the machine cancels."""
    sides = {name: Side(folder / name.replace(" ", "-"), size, swap=name == "swap") for name in ("no swap", "swap")}
    steady: dict[str, list[float]] = {name: [] for name in sides}
    async with contextlib.AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(side.engine()) for name, side in sides.items()}
        for number in range(1 + size.rounds):
            for name, side in sides.items():
                span_s = await side.round(engines[name])
                if number:  # in the first one everything is new
                    steady[name].append(span_s)
    restarted: dict[str, float] = {}
    for name, side in sides.items():
        async with side.engine() as engine:
            restarted[name] = await side.round(engine)
    figures: list[Figure] = []
    for name, side in sides.items():
        figures += [
            Figure(f"a round, {name}", statistics.median(steady[name]), "s"),
            Figure(f"a round after a restart, {name}", restarted[name], "s"),
            Figure(f"of the prompts not read again after it, {name}", 100 * side.cached, "%"),
        ]
    times = [without / swap for without, swap in zip(*steady.values(), strict=True)]
    return [
        *figures,
        at_least("swap against none", statistics.median(times), "x", GOAL),
        at_least("swap against none, after a restart", restarted["no swap"] / restarted["swap"], "x", GOAL),
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
