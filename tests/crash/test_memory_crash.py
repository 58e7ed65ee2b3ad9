"""Crash points of evictions: die where something leaves a frame, boot again, and memory is exact."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest
from tests.crash.scenario import KILLED
from tests.unit.kernel.exactness import faults, read_back

import mains
from mains.errors import EngineError, Spent
from mains.kernel.desk import Desk
from mains.kernel.ports import Message, Reply, Request, ToolCall, Usage
from mains.testing import CrashProbe, ScriptedEngine

pytestmark = pytest.mark.crash
TURNS = 24
SETTINGS = mains.Settings(checkpoint_events=7)
PROGRAM = """---
name: worker
description: reads reports
tools: [look, read]
frame_tokens: 3000
max_tokens: 150
---
Read all reports.
"""
_EVERY = 23  # of the points that have nothing to do with evictions, one of so many


def report(n: int) -> str:
    """Small ones, of which only a summary is rid, and now and then one that is too large to be shown whole."""
    return f"report {n}: " + "nothing new there " * (200 if n % 7 == 3 else 20)


def open_home(folder: Path, probe: CrashProbe | None = None) -> object:
    """A model that reads a report in each turn; it makes no summaries for the second process."""

    def answer(request: Request) -> Reply:
        with (folder / "asked").open("ab", buffering=0) as file:
            file.write(msgspec.json.encode((request.key, request.messages)) + b"\n")
        turn = int(request.key.split("-")[1])
        if request.messages[-1].text.startswith("Everything above"):
            if request.process == 2:
                raise EngineError("no", retryable=False, spent=Spent.UNKNOWN)
            return Reply(f"Until turn {turn} nothing was new.", usage=Usage(10, 0, 5))
        if turn <= TURNS:
            return Reply("", (ToolCall("x", "look", f'{{"n":{turn}}}'),), Usage(10, 0, 5))
        return Reply("nothing is new", usage=Usage(10, 0, 5))

    @mains.device(read_only=True)
    def look(n: int) -> str:
        """Read a report."""
        return report(n)

    engine = ScriptedEngine.of(answer)
    return mains.open(folder / "home", engines=[engine], devices=[look], settings=SETTINGS, probe=probe)


async def live(kernel: Desk, folder: Path) -> None:
    """A process that reads, and forks of it: while it reads, and after."""
    pid = await kernel.spawn(folder / "worker.md", key="worker")
    await kernel.send(pid, "A person asks for all reports.", key="said")
    await kernel.wait(pid, 0.05)
    while len(pids := [p.pid for p in await kernel.ps(every=True)]) < 3:
        await kernel.fork(pids[-1])
    for each in pids:
        assert (await kernel.wait(each, 60)).result == "nothing is new"


def run(folder: Path, target: int) -> tuple[int, list[str]]:
    """A life in a child that dies at a crash point; its exit code, and the points that it passed."""
    folder.mkdir()
    (folder / "worker.md").write_text(PROGRAM)
    if (child := os.fork()) == 0:
        code = 1
        try:
            probe = CrashProbe(target, lambda _: os._exit(KILLED))

            async def body() -> None:
                async with open_home(folder, probe) as kernel:  # type: ignore[attr-defined]
                    await live(kernel, folder)

            asyncio.run(body())
            (folder / "points").write_text("\n".join(probe.passed))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    points = folder / "points"
    return code, points.read_text().split("\n") if points.exists() else []


async def look_and_finish(folder: Path) -> None:
    """What the crash left goes on, and all that was shown in either life is made anew from the journal."""
    async with open_home(folder) as kernel:  # type: ignore[attr-defined]
        await live(kernel, folder)
        lines = [msgspec.json.decode(line, type=tuple[str, tuple[Message, ...]]) for line in _asked(folder)]
        asked = [Request(messages=messages, output_tokens_max=0, key=key) for key, messages in lines]
        assert faults(kernel.journal, SETTINGS, asked) == []
        for p in kernel.journal.processes("process_all"):
            assert await read_back(kernel.journal, SETTINGS, p.pid) == []


def _asked(folder: Path) -> list[bytes]:
    return (folder / "asked").read_bytes().splitlines()


@pytest.mark.timeout(600)
def test_every_crash_point_of_an_eviction_is_survived(tmp_path: Path) -> None:
    code, points = run(tmp_path / "whole", -1)
    assert code == 0
    asyncio.run(look_and_finish(tmp_path / "whole"))
    summed = [at for at, point in enumerate(points) if point.startswith("summed.")]
    assert len(summed) >= 2, "before and after it; a fork that is made late has no summary left to make"
    near = {at + beside for at in summed for beside in (-3, -2, -1, 0, 1, 2)}
    for target in sorted(near | set(range(0, len(points), _EVERY))):
        folder = tmp_path / str(target)
        code, _ = run(folder, target)
        if code:
            assert code == KILLED
            asyncio.run(look_and_finish(folder))
