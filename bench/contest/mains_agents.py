"""Mains: a program, an `openai` engine that streams (as it does by default) and a Python function as the device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

import mains
from bench.contest import contestant
from bench.contest.contestant import Ended, Job, RunAgent
from mains.kernel.desk import Desk

PROGRAM = f"""---
name: counter
description: counts with a tool
tools: [count]
inputs:
  agent: text
---
{contestant.PROSE}

Count for {{{{agent}}}}.
"""
CONFIGURATION = """default_engine = "http"

[engines.http]
kind = "openai"
url = "{url}"
model = "counting"
slots = {slots}

[settings]
turns_max = {turns}
"""


def device(job: Job) -> object:
    """The tool: an effect on the disk in the kill test, nothing elsewhere."""
    if job.job == "life":

        @mains.device
        def count(agent: str, n: int) -> str:
            """Count something, once."""
            return contestant.record(job.folder, agent, n)
    else:

        @mains.device
        async def count(agent: str, n: int) -> str:
            """Count something, once."""
            return contestant.count(agent, n)

    return count


@asynccontextmanager
async def _desk(job: Job) -> AsyncIterator[Desk]:
    home = Path(job.folder) / "home"
    home.mkdir(exist_ok=True)
    (home / "mains.toml").write_text(CONFIGURATION.format(url=job.url, slots=job.at_once, turns=job.turns + 2))
    async with mains.open(home, devices=[device(job)]) as desk:
        yield desk


def program_file(job: Job) -> Path:
    """The program, written when it is not there yet."""
    path = Path(job.folder) / "counter.md"
    if not path.exists():
        path.write_text(PROGRAM)
    return path


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[RunAgent]:
    """Processes from their beginning."""
    program = program_file(job)
    async with _desk(job) as desk:

        async def run(agent: str) -> str:
            outcome = await desk.wait(await desk.spawn(program, {"agent": agent}))
            return str(outcome.result)

        yield run


async def live(job: Job) -> Ended:
    """Start each process (a key finds the one of an earlier life), answer the doubts, and wait for the end."""
    ended = Ended()
    program = program_file(job)
    async with _desk(job) as desk:

        async def to_the_end(agent: str) -> None:
            pid = await desk.spawn(program, {"agent": agent}, key=agent)
            while (outcome := await desk.wait(pid)).state != "EXITED":
                if not outcome.reason.startswith("in doubt"):
                    break
                ended.note("in doubt")
                await _resolve(desk, pid, agent, job)
            ended.finished += outcome.result == contestant.FINAL
            ended.lost += outcome.result != contestant.FINAL

        await contestant.everybody(job, to_the_end)
    return ended


async def _resolve(desk: Desk, pid: int, agent: str, job: Job) -> None:
    """As a person would: look whether it happened, and say so."""
    call = next(c for c in (await desk.show(pid))["open_calls"] if c["state"] == "in doubt")
    n = sum(each.kind == "replied" for each in await desk.history(pid)) - 1
    effects = Path(job.folder) / "effects"
    happened = effects.exists() and f"{agent} {n}" in effects.read_text().splitlines()
    assert call["tool"] == "count"
    await desk.answer(pid, f'done="counted {n}"' if happened else "retry")


if __name__ == "__main__":
    contestant.main(opened, live, uvloop.new_event_loop)
