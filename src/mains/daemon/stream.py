"""Streams of lines (NDJSON): what takes long, or never ends, without a silent connection.

    lines(source, alive_s, closing)    the objects of an async iterator, an empty line when it is quiet
    after_work(work, ...)              one object, when a piece of work in a thread is done

A client that hangs up ends its stream at once (Starlette cancels it), and with it whatever it watched.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.responses import StreamingResponse

from mains.daemon import wire
from mains.errors import DaemonError, MainsError

_encode = msgspec.json.Encoder().encode


class Quiet:
    """How long a stream may be silent, and the event that ends every stream."""

    def __init__(self, alive_s: float, closing: asyncio.Event) -> None:
        self.alive_s = alive_s
        self.closing = closing

    def respond(self, source: AsyncGenerator[Any, None]) -> StreamingResponse:
        """A response that streams `source`."""
        return StreamingResponse(self._lines(source), media_type="application/x-ndjson")

    async def _lines(self, source: AsyncGenerator[Any, None]) -> AsyncIterator[bytes]:
        async with aclosing(source):
            ended = asyncio.ensure_future(self.closing.wait())
            coming: asyncio.Future[Any] | None = None
            try:
                while True:
                    coming = coming or asyncio.ensure_future(anext(source))
                    await asyncio.wait({coming, ended}, timeout=self.alive_s, return_when=asyncio.FIRST_COMPLETED)
                    if coming.done():
                        yield _encoded(coming.result())
                        coming = None
                    elif ended.done():
                        yield _encode(wire.pack(DaemonError("the daemon was told to end"))) + b"\n"
                        return
                    else:
                        yield b"\n"
            except StopAsyncIteration:
                yield _encode(wire.END) + b"\n"
            except MainsError as error:
                yield _encode(wire.pack(error)) + b"\n"
            finally:
                await cancel(ended, coming)


def _encoded(item: Any) -> bytes:
    """An object as a line; a list as a line for each."""
    return b"".join(_encode(each) + b"\n" for each in (item if isinstance(item, list) else [item]))


async def cancel(*futures: asyncio.Future[Any] | None) -> None:
    """Cancel and wait, so that a generator is at rest before it is closed."""
    at_rest = [future for future in futures if future is not None]
    for future in at_rest:
        future.cancel()
    await asyncio.gather(*at_rest, return_exceptions=True)


async def after_work(work: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    """The value of `work`, done in a thread, as the only line."""
    yield await asyncio.to_thread(work)
