"""An hour's soak: 200 processes that live on with faults, and a kernel that halts and boots in between.

Engines fail, devices break, processes are signalled, written to, killed, and started anew; every two minutes the kernel
halts in order and the next one boots in the same program. Each minute a line is written: resident memory, open
descriptors, database and write-ahead log. Flat means: the last quarter of the samples stands no higher than the second
one (the first is left out: caches fill). The database grows with history and is only reported.

The samples are written to a CSV file in the system's folder for temporary files; its path is in the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

import mains
from bench import machine
from bench.report import Figure, Report, at_least, below
from mains.engines.scripted import ScriptedEngine
from mains.errors import DeviceError, EngineError, LimitError, Spent, UsageError
from mains.kernel import audit, reckon
from mains.kernel.desk import Desk
from mains.kernel.ports import Failed, Finish, Reply, Request, Signal, ToolCall, Usage
from mains.testing.device import ScriptedDevice

MINUTES = 60.0
PROCESSES = 200
_SLOTS = 32
_TICK_S = 0.25
_SAMPLES_A_MINUTE = 1.0
_HALT_S = 120.0
_TURNS = 12
_PROGRAM = """---
name: {name}
description: lives on
tools: [{spawn}send, receive, sleep, act, look]
on_doubt: skip
---
Live on.
"""
_SIGNALS = (Signal.STOP, Signal.CONT, Signal.CONT, Signal.TERM, Signal.KILL)


class Sample(msgspec.Struct, frozen=True):
    """How it stood at one moment."""

    s: float
    rss_mb: float
    descriptors: int
    database_mb: float
    log_mb: float
    alive: int
    started: int
    boots: int


class _World:
    """Engines and devices with their faults, and the people who keep the place busy."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        self._folder = folder
        self.started = 0
        for name, spawn in (("parent", "spawn(child), "), ("child", "")):
            (folder / f"{name}.md").write_text(_PROGRAM.format(name=name, spawn=spawn))
        self.engine = ScriptedEngine.of(self._answer, slots=_SLOTS)
        self.devices = [
            ScriptedDevice("act", lambda arguments, context: self._act()),
            ScriptedDevice("look", lambda arguments, context: self._act(), read_only=True),
        ]

    def _answer(self, request: Request) -> Reply:
        kind = self._chance.random()
        if kind < 0.05:
            spent = self._chance.choice((Spent.NOTHING, Spent.UNKNOWN))
            raise EngineError("no luck", retryable=self._chance.random() < 0.8, spent=spent)
        turn = sum(message.role == "assistant" for message in request.messages)
        usage = Usage(10 * len(request.messages), 0, 20)
        if turn >= _TURNS or kind < 0.08:
            return Reply("lived", usage=usage)
        tool = self._chance.choice(request.tools).name
        arguments: dict[str, object] = {
            "sleep": {"seconds": self._chance.choice((0.2, 2, 8))},
            "receive": {"timeout_s": 3},
            "send": {"to": self._chance.randint(1, 1 + self.started + PROCESSES), "text": "hello"},
            "spawn": {"program": "child", "inputs": {}},
        }.get(tool, {})
        return Reply("", (ToolCall("x", tool, json.dumps(arguments)),), usage, Finish.CALLS)

    def _act(self) -> str | Failed | DeviceError:
        kind = self._chance.random()
        return DeviceError("it broke") if kind < 0.03 else Failed("not now") if kind < 0.1 else "done " * 20

    async def tick(self, kernel: Desk) -> int:
        """Fill up, help those who stand still, send a signal and a message; how many are alive."""
        alive = await kernel.ps()
        for _ in range(PROCESSES - len(alive)):
            self.started += 1
            await kernel.spawn(self._folder / "parent.md", budget=self._chance.choice((None, 4_000, 20_000)))
        orders: list[Awaitable[object]] = [
            kernel.signal(p.pid, Signal.KILL if "breaker" in p.reason else Signal.CONT)
            for p in alive
            if p.state == "STOPPED" and self._chance.random() < 0.3
        ]
        if alive:
            orders.append(kernel.signal(self._chance.choice(alive).pid, self._chance.choice(_SIGNALS)))
            orders.append(kernel.send(self._chance.choice(alive).pid, "how are you?"))
        for order in orders:
            with contextlib.suppress(UsageError, LimitError):  # it has ended meanwhile, or its mailbox is full
                await order
        return max(len(alive), PROCESSES)


async def _soak(folder: Path, minutes: float, table: Path) -> list[Sample]:
    world, samples = _World(folder, 1), list[Sample]()
    start, boots, alive = time.monotonic(), 0, 0
    every_s = min(60 / _SAMPLES_A_MINUTE, minutes * 60 / 40)
    halt_s = min(_HALT_S, minutes * 60 / 10)
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(Sample.__struct_fields__)
        while time.monotonic() - start < minutes * 60:
            boots += 1
            async with mains.open(folder / "home", engines=[world.engine], devices=world.devices) as kernel:
                until = time.monotonic() + halt_s
                while time.monotonic() < until:
                    alive = await world.tick(kernel)
                    for device in world.devices:
                        device.asked.clear()
                    if time.monotonic() - start >= len(samples) * every_s:
                        sample = _sample(folder, time.monotonic() - start, alive, world.started, boots)
                        samples.append(sample)
                        rows.writerow(msgspec.structs.astuple(sample))
                        file.flush()
                    await asyncio.sleep(_TICK_S)
        async with mains.open(folder / "home", engines=[world.engine], devices=world.devices) as kernel:
            faults = await asyncio.to_thread(lambda: [*audit.verify(kernel.journal), *reckon.verify(kernel.journal)])
    if faults:
        raise SystemExit(f"soak: {len(faults)} faults, the first: {faults[0]}")
    return samples


def _sample(folder: Path, passed_s: float, alive: int, started: int, boots: int) -> Sample:
    machine.settle()
    database = folder / "home" / "mains.db"
    log = database.with_name("mains.db-wal")
    return Sample(
        s=round(passed_s, 1),
        rss_mb=round(machine.rss_bytes() / 1e6, 2),
        descriptors=len(os.listdir("/dev/fd")),  # noqa: PTH208 - names that vanish while they are listed
        database_mb=round(database.stat().st_size / 1e6, 2),
        log_mb=round(log.stat().st_size / 1e6, 2) if log.exists() else 0.0,
        alive=alive,
        started=started,
        boots=boots,
    )


def _quarters(samples: list[Sample], field: str) -> tuple[float, float]:
    """The medians of the second and of the last quarter."""
    values = [float(getattr(sample, field)) for sample in samples]
    quarter = max(1, len(values) // 4)
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def main(quick: bool, minutes: float = MINUTES) -> Report:
    """Soak for so many minutes (a quick run: for seconds) and judge."""
    handle, name = tempfile.mkstemp(prefix="mains-soak-", suffix=".csv")
    os.close(handle)
    with machine.scratch() as folder:
        samples = asyncio.run(_soak(folder, 0.1 if quick else minutes, Path(name)))
    rss, descriptors, log = (_quarters(samples, field) for field in ("rss_mb", "descriptors", "log_mb"))
    figures = (
        Figure("minutes", round(samples[-1].s / 60, 1), "min"),
        Figure("processes started by hand", samples[-1].started, ""),
        at_least("kernels, one after the other", samples[-1].boots, "", 2),
        Figure("memory, second quarter", rss[0], "MB"),
        below("memory, last quarter", rss[1], "MB", round(rss[0] * 1.05 + 2, 2)),
        below("descriptors, last quarter", descriptors[1], "", descriptors[0] + 3),
        below("write-ahead log, most", max(sample.log_mb for sample in samples), "MB", 64),
        Figure("database at the end", samples[-1].database_mb, "MB"),
    )
    return Report("soak", figures, (f"{len(samples)} samples in {name}; log {log[0]:g} and {log[1]:g} MB",))
