"""A request's body is sent whole and then let go; a call's one timer cuts for silence and for the total."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from mains.engines.faults import Party
from mains.engines.sent_body import encoded
from mains.engines.silence import Silence, SilentError
from mains.errors import EngineError

PARTY = Party("e", "http://127.0.0.1/", "m", "", "")


async def test_the_bytes_are_gone_while_the_answer_is_awaited() -> None:
    came, answer = asyncio.Event(), asyncio.Event()
    got: list[bytes] = []

    async def hold(request: web.Request) -> web.Response:
        got.append(await request.read())
        came.set()
        await answer.wait()
        return web.Response(text=request.content_type)

    app = web.Application(client_max_size=1 << 23)
    app.router.add_post("/", hold)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    text = "x" * 3_000_000  # aiohttp warns of plain bytes from 1 MB on
    body = encoded({"messages": text}, PARTY)
    async with aiohttp.ClientSession() as http:
        asked = asyncio.create_task(http.post(f"http://{host}:{port}/", data=body).__aenter__())
        await came.wait()
        assert body.decode() == ""
        answer.set()
        response = await asked
        assert await response.text() == "application/json"
    await runner.cleanup()
    assert got == [b'{"messages":"' + text.encode() + b'"}']


def test_text_that_is_no_unicode_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(EngineError, match="no Unicode"):
        encoded({"messages": "\ud800"}, PARTY)


async def test_the_total_ends_a_block_that_is_not_silent() -> None:
    with pytest.raises(TimeoutError):
        async with Silence(60, 60, 0.01) as silence:
            silence.heard(flowing=True)
            await asyncio.Event().wait()


async def test_the_total_holds_after_all_that_counts_has_come() -> None:
    with pytest.raises(TimeoutError):
        async with Silence(60, 60, 0.01) as silence:
            silence.over()
            await asyncio.Event().wait()


async def test_silence_before_the_total_is_silence() -> None:
    with pytest.raises(SilentError, match=r"0\.01 s"):
        async with Silence(0.01, None, 60):
            await asyncio.Event().wait()
