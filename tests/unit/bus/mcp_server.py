"""A real MCP server for tests, written with the SDK: it behaves, and misbehaves when asked.

    python mcp_server.py            over standard streams
    python mcp_server.py http       over streamable HTTP; the first line of its output is its port

What it does it tells to the port of this machine that TRACES names, so that a test sees effects and not only answers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import anyio
import mcp_types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from pydantic import BaseModel

server = MCPServer("test-server", version="7.0")
OUT = os.dup(1)  # the SDK turns standard output away from what a tool prints


def trace(what: str) -> None:
    """Tell that something happened."""
    if port := os.environ.get("TRACES"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as teller, contextlib.suppress(OSError):
            teller.sendto(what.encode(), ("127.0.0.1", int(port)))


@server.tool()
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool(annotations=mcp_types.ToolAnnotations(read_only_hint=True))
def look() -> str:
    """Says that it only reads."""
    return "seen"


@server.tool()
def fail() -> str:
    """Refuse."""
    raise ValueError("no such thing")


@server.tool()
def count_meta(ctx: Context) -> str:
    """The key of this call."""
    trace("keyed")
    meta = ctx.request_context.meta or {}
    return str(dict(meta).get("mains/idempotency-key"))


@server.tool()
async def wait(name: str, ctx: Context) -> str:
    """Report progress, then wait until it is cancelled."""
    trace(f"begun {name}")
    await ctx.report_progress(1, 3, "one third")
    try:
        await anyio.sleep_forever()
    finally:
        trace(f"ended {name}")
    return "never"


@server.tool()
async def steps(n: int, ctx: Context) -> str:
    """Report n steps, then answer."""
    for step in range(1, n + 1):
        await ctx.report_progress(step, n, f"step {step}")
    return "done"


@server.tool()
def crash(code: int) -> str:
    """End in the middle of the call."""
    trace("crashed")
    sys.stderr.write("something broke\n")
    sys.stderr.flush()
    os._exit(code)


@server.tool()
def hang() -> str:
    """Hold up the whole server, as a blocking tool does."""
    trace("hung")
    os.kill(os.getpid(), signal.SIGSTOP)
    return "never"


@server.tool()
def long_line() -> str:
    """Write a line that never ends."""
    trace("long")
    while True:
        os.write(OUT, b"x" * 65536)


@server.tool()
def junk(times: int) -> str:
    """Write lines that are no messages."""
    os.write(OUT, b"no message\n" * times)
    return "junk"


@server.tool()
def big(bytes: int) -> str:
    """A large result."""
    return "y" * bytes


@server.tool()
def picture() -> list[Any]:
    """Text, a picture and a link."""
    return [
        mcp_types.TextContent(type="text", text="a cat"),
        mcp_types.ImageContent(type="image", data="aGVsbG8=", mime_type="image/png"),
        mcp_types.ResourceLink(type="resource_link", name="more", uri="file:///cat.txt"),
    ]


@server.tool()
def environment() -> str:
    """The names in its environment, and where it works."""
    return " ".join(sorted(os.environ)) + "\n" + str(Path.cwd())


@server.tool()
def offspring() -> str:
    """Start a child in a session of its own that ignores everything but SIGKILL; its pid."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(1, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", code], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    return str(child.pid)


@server.tool()
def eat(mib: int) -> str:
    """Use memory."""
    return str(len(bytearray(mib * 1024 * 1024)))


@server.tool()
def spin() -> str:
    """Use processor time without end."""
    trace("spinning")
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        pass
    return "never"


class Total(BaseModel):
    """What `promised` promises."""

    total: int


@server.tool()
def promised() -> Total:
    """Keep to the schema of its output."""
    return Total(total=3)


class Confirm(BaseModel):
    """An answer."""

    ok: bool


async def confirm(ctx: Context) -> Elicit[Confirm]:
    """Ask whether it shall be done."""
    return Elicit("really?", Confirm)


@server.tool()
def careful(sure: Annotated[Confirm, Resolve(confirm)]) -> str:
    """Do it when a person says so."""
    return f"sure: {sure.ok}"


@server.tool()
async def sign_in(ctx: Context) -> str:
    """Have a person open a page (revision 2025-11-25)."""
    return (await ctx.elicit_url("sign in, please", "https://sign-in.example.org/x?y=1", "e1")).action


async def guess(ctx: Context) -> Sample:
    """Ask the client's model."""
    said = mcp_types.SamplingMessage(role="user", content=mcp_types.TextContent(type="text", text="guess a number"))
    return Sample([said], max_tokens=40, system_prompt="Guess.", include_context=os.environ.get("INCLUDE"))  # type: ignore[arg-type]


@server.tool()
def clever(guessed: Annotated[mcp_types.CreateMessageResult, Resolve(guess)]) -> str:
    """Have the client's model guess."""
    assert isinstance(guessed.content, mcp_types.TextContent)
    return f"{guessed.model} guessed {guessed.content.text} ({guessed.stop_reason})"


async def places(ctx: Context) -> ListRoots:
    """Ask where the client works."""
    return ListRoots()


@server.tool()
def where(roots: Annotated[mcp_types.ListRootsResult, Resolve(places)]) -> str:
    """Say where the client works."""
    return " ".join(str(root.uri) for root in roots.roots) or "nowhere"


@server.tool()
async def grow(ctx: Context) -> str:
    """Offer another tool from now on."""

    def extra() -> str:
        return "extra"

    server.add_tool(extra)
    await ctx.session.send_tool_list_changed()
    return "grown"


@server.tool()
async def alter(ctx: Context, description: str) -> str:
    """Describe another tool otherwise from now on."""

    def look(everything: bool = False) -> str:
        return f"seen, everything: {everything}"

    server.remove_tool("look")
    server.add_tool(look, description=description)
    await ctx.session.send_tool_list_changed()
    return "altered"


def main() -> None:
    """Serve."""
    trace(f"started {os.getpid()}")
    if sys.argv[1:] == ["http"]:
        import uvicorn

        listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
        print(listener.getsockname()[1], flush=True)
        app = server.streamable_http_app()
        uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
    else:
        server.run("stdio")


if __name__ == "__main__":
    main()
