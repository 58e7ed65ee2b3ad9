"""A real HTTP server on loopback for the tests of engines: it plays a handler, also half of it and then silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from mains.engines.catalogue import EngineSpec
from mains.engines.endpoint import Dialect, EndpointEngine
from mains.errors import EngineError, Spent
from mains.kernel.ports import Message, Request

KEY = "sk-very-secret-0123456789"
HELLO = Request(messages=(Message("system", "Be brief."), Message("user", "Hello?")), output_tokens_max=64, key="k1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[..., Awaitable[EndpointEngine]]
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def started(stack: contextlib.AsyncExitStack, handler: Handler, path: str) -> str:
    """A server that plays `handler` at POST /v1`path`; its URL up to /v1."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_post(f"/v1{path}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.001, access_log=None, handler_cancellation=True)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"


def engine_at(
    stack: contextlib.AsyncExitStack,
    url: str,
    dialect: Dialect,
    *,
    kind: str,
    timeout_s: float = 5.0,
    now: float = 0.0,
    **changes: Any,
) -> EndpointEngine:
    """An engine that talks to `url`. Extra arguments change its spec."""
    fields: dict[str, Any] = {"model": "m1", "key_env": "TEST_KEY", "slots": 4, "context_tokens": 1_000, **changes}
    spec = EngineSpec(name="e1", kind=kind, url=url, **fields)  # type: ignore[arg-type]
    engine = EndpointEngine(spec, dialect, timeout_s=timeout_s, environ={"TEST_KEY": KEY}, now=lambda: now)
    stack.push_async_callback(engine.close)
    return engine


@contextlib.asynccontextmanager
async def raw_server(connected: Connected) -> AsyncIterator[str]:
    """A server that speaks bytes; its URL."""
    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def ignore(text: str) -> None:
    """A watcher that does not watch."""


async def fails(engine: EndpointEngine, request: Request = HELLO) -> EngineError:
    """The error of a call that fails, after what holds for every failure was checked."""
    with pytest.raises(EngineError) as caught:
        await engine.complete(request, ignore)
    assert KEY not in str(caught.value) + caught.value.hint + repr(caught.value)
    assert engine.state().health == f"failing: {caught.value}"
    assert engine.state().busy == 0
    return caught.value


def lost(error: EngineError) -> bool:
    """It may be tried again, and nobody knows what it cost."""
    return error.retryable and error.spent is Spent.UNKNOWN


async def hang(request: web.Request) -> web.StreamResponse:
    """Say nothing (more)."""
    await asyncio.Event().wait()
    raise AssertionError("never")


def answer(status: int, body: object = None, **headers: str) -> Handler:
    """A handler that answers with a status and an error's body."""

    async def handler(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        text = body if isinstance(body, str) else json.dumps(body or {"error": {"message": "said the server"}})
        return web.Response(status=status, text=text, headers=named, content_type="application/json")

    return handler
