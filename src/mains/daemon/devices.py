"""The routes of devices.

GET  devices                               every device that speaks MCP, as it is
GET  device?name=NAME                      one, with its tools as they were last listed
POST devices {name, entry, untried}        add one, or replace the one of this name
POST device/remove {name}, device/restart {name}, device/tools {name}: ask it for its tools
GET  device/changes?name=NAME              how its tools differ from those that were accepted, and a digest of them
POST device/accept {name, digest}          take them over
POST device/call {name, tool, arguments}   one call

What may take long (all but the first two and `remove`) is answered by a stream of lines: `{"progress": TEXT}` while it
goes on, then the answer. A client that hangs up ends what it has ordered; a call is cancelled at the device.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.bus.hub import Hub
from mains.daemon.body import body_of, respond
from mains.daemon.stream import Quiet, cancel
from mains.errors import UsageError
from mains.kernel.ports import CallContext, Failed

_PROGRESS_MAX = 100  # words of one call that wait to be sent; a later one is left out


class DeviceOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new device: its entry in mains.toml."""

    name: str
    entry: dict[str, Any]
    untried: bool = False


class DeviceName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an order about a device."""

    name: str


class DeviceAcceptance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a list that is accepted, by the digest that `device/changes` gave."""

    name: str
    digest: str


class DeviceCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call."""

    name: str
    tool: str
    arguments: dict[str, Any] = {}


class DeviceRoutes:
    """The routes that order and ask about devices."""

    def __init__(self, hub: Hub, workspaces: Path, quiet: Quiet, bytes_max: int) -> None:
        self._hub = hub
        self._workspaces = workspaces
        self._quiet = quiet
        self._bytes_max = bytes_max

    async def list(self, _: Request) -> Response:
        return respond(self._hub.states())

    async def device(self, request: Request) -> Response:
        name = _name_of(request)
        return respond({"state": self._hub.state(name), "tools": self._hub.tools_of(name)})

    async def add(self, request: Request) -> Response:
        order = await body_of(request, DeviceOrder, self._bytes_max)
        return self._quiet.respond(_once(self._hub.add(order.name, order.entry, untried=order.untried)))

    async def changes(self, request: Request) -> Response:
        found = self._hub.changes(_name_of(request))
        return respond({"digest": found.digest, "changes": found.changes})

    async def accept(self, request: Request) -> Response:
        order = await body_of(request, DeviceAcceptance, self._bytes_max)
        return respond(self._hub.accept(order.name, order.digest))

    async def remove(self, request: Request) -> Response:
        order = await body_of(request, DeviceName, self._bytes_max)
        await self._hub.remove(order.name)
        return respond({})

    async def restart(self, request: Request) -> Response:
        order = await body_of(request, DeviceName, self._bytes_max)
        return self._quiet.respond(_once(self._hub.restart(order.name)))

    async def tools(self, request: Request) -> Response:
        order = await body_of(request, DeviceName, self._bytes_max)
        return self._quiet.respond(_once(self._listed(order.name)))

    async def _listed(self, name: str) -> dict[str, Any]:
        tools = await self._hub.list_tools(name)
        return {"state": self._hub.state(name), "tools": tools}

    async def call(self, request: Request) -> Response:
        order = await body_of(request, DeviceCall, self._bytes_max)
        return self._quiet.respond(self._calling(order))

    async def _calling(self, order: DeviceCall) -> AsyncGenerator[Any, None]:
        words: asyncio.Queue[str] = asyncio.Queue(_PROGRESS_MAX)

        def told(text: str) -> None:
            if not words.full():
                words.put_nowait(text)

        context = CallContext(0, f"person-{uuid.uuid4().hex}", self._workspaces, 1)
        calling = asyncio.ensure_future(self._hub.call(order.name, order.tool, order.arguments, context, told))
        coming: asyncio.Future[str] | None = None
        try:
            while not calling.done():
                coming = coming or asyncio.ensure_future(words.get())
                either: set[asyncio.Future[Any]] = {calling, coming}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if coming.done():
                    yield {"progress": coming.result()}
                    coming = None
            answer = calling.result()
            yield {"text": answer.text, "failed": isinstance(answer, Failed)}
        finally:
            await cancel(calling, coming)


def _name_of(request: Request) -> str:
    name = request.query_params.get("name")
    if name is None:
        raise UsageError("`name` is missing")
    return name


async def _once(work: Awaitable[Any]) -> AsyncGenerator[Any, None]:
    """What a piece of work gives, as the only line."""
    yield await work
