"""What Mains asks of the MCP SDK, and what the SDK's errors mean here. The SDK is imported by `load`, and never before.

load()                   import it, in a thread: it takes a second
client_of(reach, ...)    a client over a reach
list_all, ask            every tool; a question that any healthy server answers
error_of, is_closed      what was raised, as our errors
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mains.bus.reach import Reach
from mains.bus.remote import EXPIRED, LOST, NOT_SENT
from mains.errors import DeviceError

if TYPE_CHECKING:
    import mcp_types
    from mcp import Client

_PAGES_MAX = 100
_REASON_CHARS = 500
_LEGACY = "2025-11-25"
# JSON-RPC 2.0, section 5.1, and MCP 2025-11-25: what a server answers before it does anything.
_SAID_NO = (-32_601, -32_602, -32_042)  # method not found; invalid params; a page must be opened first


async def load() -> None:
    """Import the SDK. Its loggers say what servers said, which is nobody's business but the device's own log."""
    await asyncio.to_thread(importlib.import_module, "mcp.client.client")
    await asyncio.to_thread(importlib.import_module, "mcp.client.streamable_http")
    for name in ("mcp", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def client_of(reach: Reach, protocol: str, callbacks: dict[str, Any], changed: Callable[[], None]) -> Client:
    """A client, not yet entered. `protocol`: the revision to speak; empty: the newest that both know."""
    import mcp_types
    from mcp import Client

    async def heard(message: object) -> None:
        if isinstance(message, mcp_types.ToolListChangedNotification):
            changed()

    mode = {"": "auto", _LEGACY: "legacy"}.get(protocol, protocol)
    return Client(
        reach.streams(),
        mode=mode,
        client_info=mcp_types.Implementation(name="mains", version=importlib.metadata.version("mains")),
        message_handler=heard,
        cache=None,
        **callbacks,
    )


def take_as_it_is(client: Client) -> None:
    """Have the client that was entered take results as they are: see docs/design.md, 2026-11-28.

    The SDK would check them against the output schema of their tool, with regular expressions that a server chose, on
    our event loop, after the effect has happened.
    """

    async def taken(name: str, result: mcp_types.CallToolResult) -> None:
        return

    client.session.validate_tool_result = taken  # type: ignore[method-assign]  # the one place where it looks


async def list_all(client: Client, tools_max: int) -> list[mcp_types.Tool]:
    """Every tool that the server lists, one page more than `tools_max` at most; none when it knows no tools."""
    from mcp import MCPError
    from mcp_types import METHOD_NOT_FOUND

    tools: list[mcp_types.Tool] = []
    cursor: str | None = None
    try:
        for _ in range(_PAGES_MAX):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if not cursor or len(tools) > tools_max:
                break
    except MCPError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
    return tools


async def ask(client: Client) -> None:
    """A question that any healthy server answers (with an error, perhaps)."""
    from mcp import MCPError

    with contextlib.suppress(MCPError):
        if client.session.initialize_result is not None:
            await client.session.send_ping()
        else:
            await client.session.send_discover(client.protocol_version)


def server_of(client: Client) -> str:
    """The name and version that a server gives itself; empty when it gives none."""
    info = client.server_info
    return f"{info.name} {info.version}" if info is not None else ""


def is_closed(fault: BaseException) -> bool:
    """Whether a call failed because its connection is over (the SDK says the same code of a single answer, too)."""
    from mcp_types import CONNECTION_CLOSED

    closed = getattr(fault, "code", None) == CONNECTION_CLOSED and str(fault) == "Connection closed"
    return isinstance(fault, asyncio.CancelledError) or closed


def is_unsent(fault: BaseException) -> bool:
    """Whether the server was never reached."""
    return getattr(fault, "code", None) == NOT_SENT


def is_refusal(fault: BaseException) -> bool:
    """Whether a call failed before it did anything: the server says so, or it was never reached."""
    return getattr(fault, "code", None) in (NOT_SENT, *_SAID_NO)


def is_answer(fault: BaseException) -> bool:
    """Whether a call failed by an answer of the server: then it is there, and works."""
    code = getattr(fault, "code", None)
    return isinstance(code, int) and code not in (NOT_SENT, LOST, EXPIRED) and not is_closed(fault)


def is_expired(fault: BaseException) -> bool:
    """Whether the server has forgotten the connection: it did nothing, and a new connection may help."""
    return getattr(fault, "code", None) == EXPIRED


def error_of(device: str, fault: BaseException) -> DeviceError:
    """What a call raised, as an error of the device's: nobody knows whether it happened."""
    retryable = getattr(fault, "code", None) == LOST
    return DeviceError(f"{device}: {words_of(fault)}", retryable=retryable)


def words_of(fault: BaseException) -> str:
    """What was raised, in a line. Of a group the first that says something is told."""
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    text = " ".join(str(fault).split())
    plain = "".join(char if char.isprintable() else "\ufffd" for char in text[:_REASON_CHARS])
    return plain or type(fault).__name__
