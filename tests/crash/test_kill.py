"""Real `kill -9` at random moments of a twenty-process run against a counting HTTP engine and a counting tool."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from tests.crash.worker import PROCESSES

import mains
from mains.kernel import audit, reckon

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1_500)]
TURNS = 12
ROOT = Path(__file__).parents[2]
PROGRAM = """---
name: counter
description: counts to twelve with a tool
tools: [count]
---
Count.
"""


class CountingEngine:
    """An OpenAI-dialect endpoint that counts its calls, and says so when a number of them has come in."""

    def __init__(self) -> None:
        self.calls = 0
        self.in_flight = 0
        self._wanted = sys.maxsize
        self._reached = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app)

    async def start(self) -> str:
        """Serve on a free port of this machine; the URL."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    async def stop(self) -> None:
        """Serve no more."""
        await self._runner.cleanup()

    async def wait_calls(self, more: int) -> None:
        """Return when `more` calls have come in."""
        self._reached.clear()
        self._wanted = self.calls + more
        await self._reached.wait()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.calls += 1
        if self.calls >= self._wanted:
            self._reached.set()
        self.in_flight += 1
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            turn = sum(m["role"] == "assistant" for m in body["messages"])
            for chunk in _chunks(turn):
                await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
                await asyncio.sleep(0)
            await response.write(b"data: [DONE]\n\n")
            return response
        finally:
            self.in_flight -= 1


def _chunks(turn: int) -> list[dict[str, object]]:
    if turn >= TURNS:
        delta: dict[str, object] = {"role": "assistant", "content": "counted to the end"}
    else:
        function = {"name": "count", "arguments": json.dumps({"n": turn})}
        delta = {"tool_calls": [{"index": 0, "id": "x", "type": "function", "function": function}]}
    usage = {"prompt_tokens": 50 + turn, "completion_tokens": 5, "total_tokens": 55 + turn}
    finish = "stop" if turn >= TURNS else "tool_calls"
    return [
        {"choices": [{"index": 0, "delta": delta}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        {"choices": [], "usage": usage},
    ]


def _prepare(folder: Path, url: str) -> None:
    (folder / "counter.md").write_text(PROGRAM)
    (folder / "home").mkdir()
    (folder / "home" / "mains.toml").write_text(
        f'default_engine = "http"\n[engines.http]\nkind = "openai"\nurl = "{url}"\nmodel = "counting"\nslots = 20\n'
    )


async def _one_life(folder: Path, engine: CountingEngine, calls: int, chance: random.Random) -> bool:
    """Boot, let `calls` model calls come in and a random number of loop rounds pass, kill. True: it was done before."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.worker",
        str(folder),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environ,
    )
    killer = asyncio.create_task(engine.wait_calls(calls))
    ended = asyncio.create_task(worker.wait())
    await asyncio.wait([killer, ended], return_when=asyncio.FIRST_COMPLETED, timeout=120)
    for _ in range(chance.randrange(200)):
        await asyncio.sleep(0)
    killer.cancel()
    if not ended.done():
        worker.kill()
    assert worker.stdout is not None
    said = (await worker.stdout.read()).decode()
    code = await ended
    assert code in (0, -9), said
    return "done" in said


async def _check(folder: Path, engine: CountingEngine, kills: int) -> None:
    effects = (folder / "effects").read_text().splitlines()
    assert len(effects) == PROCESSES * TURNS, "an effect was lost"
    assert [key for key, times in Counter(effects).items() if times > 1] == [], "an effect happened twice"
    doubts = (folder / "doubts").read_text().splitlines() if (folder / "doubts").exists() else []
    assert len(doubts) <= kills * PROCESSES
    needed = PROCESSES * (TURNS + 1)
    assert engine.calls - needed <= kills * PROCESSES, "more model calls were repeated than can have been in flight"
    async with mains.open(folder / "home") as kernel:
        journal = kernel._kernel.journal
        assert audit.verify(journal) == []
        assert reckon.verify(journal) == []
        assert [p.state for p in await kernel.ps(every=True)] == ["EXITED"] * PROCESSES
        assert {(await kernel.outcome(pid)).result for pid in range(1, PROCESSES + 1)} == {"counted to the end"}
    print(f"{kills} kills: {engine.calls - needed} model calls made again, {len(doubts)} calls in doubt")


async def test_kill_9_at_random_moments(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills_wanted = request.config.getoption("--kills")
    seed = request.config.getoption("--seed") or random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    engine = CountingEngine()
    _prepare(tmp_path, await engine.start())
    most = max(2, PROCESSES * (TURNS + 1) * 3 // (2 * kills_wanted) - 4)  # on average three quarters of the work
    kills = 0
    try:
        while kills < kills_wanted and not await _one_life(tmp_path, engine, chance.randint(1, most), chance):
            kills += 1
        while not await _one_life(tmp_path, engine, sys.maxsize // 2, chance):
            pass
        assert kills == kills_wanted
        await _check(tmp_path, engine, kills)
    finally:
        await engine.stop()
