"""Endpoints that misbehave in every way: only their callers wait, and each process ends or says why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

import mains
from mains.kernel import audit, reckon

pytestmark = pytest.mark.crash

TROUBLES = (
    "limited",
    "broken",
    "nonsense",
    "half",
    "silent",
    "unknown",
)
_GOOD = [
    {"choices": [{"index": 0, "delta": {"content": "well"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}},
]


async def _answer(request: web.Request) -> web.StreamResponse:
    how = request.match_info["how"]
    if how == "limited":
        return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"Retry-After": "0"})
    if how == "broken":
        return web.Response(status=500, text="<html>oops</html>")
    if how == "nonsense":
        return web.Response(text="<html>hello</html>", content_type="text/html")
    if how == "unknown":
        return web.json_response({"error": {"message": "no such model"}}, status=404)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if how == "silent":
        await asyncio.Event().wait()
    for chunk in _GOOD:
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        if how == "half":
            assert request.transport is not None
            request.transport.abort()
            return response
    await response.write(b"data: [DONE]\n\n")
    return response


def _config(url: str) -> str:
    engines = [
        f'[engines.{name}]\nkind = "openai"\nurl = "{url}/{name}"\nmodel = "m"\n'
        "first_byte_s = 0.3\nidle_timeout_s = 0.3\n"
        for name in [*TROUBLES, "good"]
    ]
    settings = "[settings]\nmodel_attempts_max = 2\nrefusals_max = 2\nretry_base_ms = 1\n"
    return settings + "\n".join(engines)


async def test_only_the_callers_of_a_bad_engine_wait_and_each_says_why(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_post("/{how}/chat/completions", _answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    (tmp_path / "mains.toml").write_text(_config(f"http://{host}:{port}"))
    program = tmp_path / "p.md"
    program.write_text("---\nname: p\ndescription: p\n---\nSay something.\n")
    try:
        async with mains.open(tmp_path) as kernel:
            troubled = {name: await kernel.spawn(program, engine=name) for name in TROUBLES}
            good = [await kernel.spawn(program, engine="good") for _ in range(10)]
            for pid in good:
                assert (await kernel.wait(pid, 20)).result == "well"
            for name, pid in troubled.items():
                outcome = await kernel.wait(pid, 20)
                assert (outcome.state, outcome.exit_code) == ("STOPPED", None), name
                assert outcome.reason.startswith(f"error: engine {name}: "), outcome.reason
                assert len(outcome.reason) < 400
            assert audit.verify(kernel.journal) == []
            assert reckon.verify(kernel.journal) == []
    finally:
        await runner.cleanup()
