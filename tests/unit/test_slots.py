"""Slots: an endpoint never sees more calls at once than its engine has slots, however many processes wait."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from aiohttp import web
from tests.unit.endpoint_box import started

import mains
from mains.engines.openai import OpenAIDialect

PROCESSES = 20


class Full:
    """A server that answers a call only when as many are there as there are slots: it sees every slot taken."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._arrived = 0
        self._moved = asyncio.Condition()
        self._here = 0
        self.most = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self._arrived += 1
        self._here += 1
        self.most = max(self.most, self._here)
        group_is_here = min(-(-self._arrived // self._slots) * self._slots, PROCESSES)
        async with self._moved:
            self._moved.notify_all()
            await self._moved.wait_for(lambda: self._arrived >= group_is_here)
        self._here -= 1
        return web.json_response({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})


@pytest.mark.parametrize("slots", [1, 2, 5])
async def test_the_server_sees_as_many_calls_as_there_are_slots_and_never_more(tmp_path: Path, slots: int) -> None:
    server = Full(slots)
    program = tmp_path / "p.md"
    program.write_text("---\nname: p\ndescription: p\nmodel: e\n---\nSay something.\n")
    async with contextlib.AsyncExitStack() as stack:
        url = await started(stack, server, OpenAIDialect.path)
        home = tmp_path / "home"
        home.mkdir()
        entry = f'[engines.e]\nkind = "openai"\nurl = "{url}"\nmodel = "m"\nslots = {slots}\n'
        (home / "mains.toml").write_text(entry)
        kernel = await stack.enter_async_context(mains.open(home))
        pids = [await kernel.spawn(program) for _ in range(PROCESSES)]
        async with asyncio.timeout(60):
            outcomes = [await kernel.wait(pid) for pid in pids]
    assert [outcome.result for outcome in outcomes] == ["Hi"] * PROCESSES
    assert server.most == slots
