"""An engine that behaves badly, in a process of its own: the OpenAI dialect over HTTP.

    python -m bench.bad_engine SIZE      prints its port; ends when its standard input ends

It answers slowly. What it does to a call is drawn from the call's idempotency key, so that the same calls have the same
fate, and a call that is made again has another one:

    1 in 3      the stream breaks off in the middle
    1 in 20     it bills more than it was asked for
    1 in 10     it bills nothing: no usage comes
    1 in 10     its usage comes late, after the answer has ended
    otherwise   it bills SIZE tokens, of which as many are output as it was allowed

GET /state    {"calls": ..., "broken": ..., "more": ..., "silent": ..., "billed": tokens that were billed to somebody}

A call whose messages hold fewer than TURNS - 1 replies is answered with a call of `receive`; the last one with an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import zlib
from collections import Counter
from typing import Any

import uvloop
from aiohttp import web

FINAL = "looked to the end"
TURNS = 3
STEP_S = 0.03  # between two pieces of an answer, at most
MORE = 1_000  # tokens beyond what was asked for
_PIECES = 4


def fate(key: str) -> str:
    """What happens to the call of this key."""
    drawn = zlib.crc32(key.encode()) % 60
    if drawn < 20:
        return "broken"
    if drawn < 23:
        return "more"
    if drawn < 29:
        return "silent"
    return "late" if drawn < 35 else "plain"


class Engine:
    """The counts, and the handlers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._counts: Counter[str] = Counter()

    async def state(self, _: web.Request) -> web.Response:
        """What was seen so far."""
        return web.json_response(dict(self._counts))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """One call, and its fate. A caller that was killed meanwhile hears no more."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionResetError):
            await self._answer(request, response)
        return response

    async def _answer(self, request: web.Request, response: web.StreamResponse) -> None:
        body, key = await request.json(), request.headers["Idempotency-Key"]
        kind, cap = fate(key), body.get("max_tokens") or body["max_completion_tokens"]
        self._counts["calls"] += 1
        self._counts[kind] += 1
        await response.prepare(request)
        step_s = STEP_S * (zlib.crc32(b"pace" + key.encode()) % 100) / 100
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        for number, piece in enumerate(_pieces(turn)):
            if kind == "broken" and number == _PIECES // 2:
                if request.transport is not None:  # gone: its caller was killed
                    request.transport.abort()
                return
            await response.write(_event(piece))
            await asyncio.sleep(step_s)
        if kind == "late":
            await asyncio.sleep(10 * step_s)
        if kind != "silent":
            await response.write(_event({"choices": [], "usage": self._usage(cap, kind)}))
        await response.write(b"data: [DONE]\n\n")

    def _usage(self, cap: int, kind: str) -> dict[str, int]:
        output = cap + (MORE if kind == "more" else 0)
        usage = {"prompt_tokens": max(0, self._size - cap), "completion_tokens": output}
        self._counts["billed"] += sum(usage.values())
        return usage


def _pieces(turn: int) -> list[dict[str, Any]]:
    """The pieces of an answer: three of its substance and its end."""
    if turn >= TURNS - 1:
        deltas: list[dict[str, Any]] = [{"content": part} for part in ("looked ", "to the ", "end")]
        finish = "stop"
    else:
        function = {"name": "receive", "arguments": ""}
        call = {"index": 0, "id": f"look_{turn}", "type": "function", "function": function}
        rest = [{"index": 0, "function": {"arguments": part}} for part in ('{"timeout_s"', ": 0}")]
        deltas = [{"tool_calls": [each]} for each in (call, *rest)]
        finish = "tool_calls"
    pieces = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return [*pieces, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}]


def _event(piece: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(piece)}\n\n".encode()


async def serve(size: int) -> None:
    """Serve on a free port of this machine until standard input ends."""
    engine, app = Engine(size), web.Application()
    app.router.add_post("/v1/chat/completions", engine.complete)
    app.router.add_get("/state", engine.state)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
