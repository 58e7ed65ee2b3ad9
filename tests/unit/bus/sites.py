"""Servers of our own for the device `web`: bytes as we want them, on real sockets, and one that nobody may reach.

`Site` answers on 127.0.0.2, which the rules of the tests allow although it is not public; `canary` counts who
connects to 127.0.0.1, which nothing allows. Every answer is a function of the path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from mains.bus.devices.web import Web
from mains.bus.devices.webrules import Rules, read_rules
from mains.kernel.ports import CallContext, Done, Failed
from mains.settings import Settings

OPEN = "127.0.0.2"
SHUT = "127.0.0.1"
Answer = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


def rules(*hosts: str, private: Sequence[str] = (f"{OPEN}/32",)) -> Rules:
    """Rules as mains.toml would give them."""
    return read_rules({"web": {"hosts": list(hosts), "private": list(private)}}, "mains.toml")


class Door:
    """A listener, and how often somebody came."""

    def __init__(self) -> None:
        self.port = 0
        self.visits = 0
        self.asked: list[str] = []


@contextlib.asynccontextmanager
async def door(address: str, answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Door]:
    """Serve at an address until the end; whoever is still there is cut off."""
    open_door, at_work = Door(), set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_door.visits += 1
        at_work.add(asyncio.current_task())  # type: ignore[arg-type]  # there is one
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError
            ):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                open_door.asked.append(head)
                await answer(writer, head.split(" ")[1])
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, address, 0, ssl=tls)
    open_door.port = server.sockets[0].getsockname()[1]
    try:
        yield open_door
    finally:
        server.close()
        for each in at_work:
            each.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        await server.wait_closed()


def reply(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    kind: str = "text/plain; charset=utf-8",
    more: str = "",
    length: bool = True,
) -> bytes:
    """A whole answer."""
    sized = f"Content-Length: {len(body)}\r\n" if length else ""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{sized}{more}Connection: close\r\n\r\n".encode("latin-1") + body
    )


async def fetched(web: Web, url: str) -> Done | Failed:
    """One call of `fetch`."""
    from pathlib import Path

    try:
        return await web.call("fetch", {"url": url}, CallContext(1, "k", Path("/nowhere"), 1))
    finally:
        await web.close()


def settings(**more: Any) -> Settings:
    """Limits that are soon reached."""
    return Settings(**({"web_timeout_s": 5.0, "web_bytes_max": 200_000, "web_redirects_max": 5} | more))
