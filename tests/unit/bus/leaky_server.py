"""A real MCP server that says all it knows, in every spelling that it can think of: nothing may come back.

    python leaky_server.py            over standard streams
    python leaky_server.py http       over streamable HTTP; the first line of its output is its port

What it got stands in the file that GOT names, so that a test sees that it got it.
"""

from __future__ import annotations

import base64
import html
import json
import os
import sys
import textwrap
from pathlib import Path
from urllib.parse import quote, quote_plus

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

TOKEN = os.environ.get("TOKEN", "")


def disguises(value: str) -> dict[str, str]:
    """A value as programs write it, by the name of the spelling."""
    data = value.encode()
    found = {
        "plain": value,
        "bearer": f"Bearer {value}!",
        "basic": base64.b64encode(f"user:{value}".encode()).decode(),
        "hex": data.hex(),
        "HEX": data.hex().upper(),
        "quoted": quote(value, safe=""),
        "path": quote(value),
        "form": quote_plus(value),
        "every byte": "".join(f"%{byte:02X}" for byte in data),
        "json": json.dumps({"token": value}),
        "json raw": json.dumps({"token": value}, ensure_ascii=False),
        "json in json": json.dumps(json.dumps({"token": value})),
        "html": html.escape(value),
        "html of Go": html.escape(value).replace("&quot;", "&#34;").replace("+", "&#43;"),
        "json of Go": json.dumps(value, ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026"),
        "json of .NET": "".join(
            c if (c.isalnum() and c.isascii()) or c in "~./-" else f"\\u{ord(c):04X}" for c in value
        ),
        "bytes": str(value.encode()),
        "python": repr([value]),
        "wrapped": textwrap.fill(base64.b64encode(b"x" * 60 + data + b"tail").decode(), 76),
    }
    for before in ("", "x", "xy"):
        for behind in ("", "z"):
            text = (before + value + behind).encode()
            found[f"base64 {before}.{behind}"] = base64.b64encode(text).decode()
            found[f"base64url {before}.{behind}"] = base64.urlsafe_b64encode(text).decode().rstrip("=")
    return found


def told(value: str) -> str:
    """All of them, a line each."""
    return "\n".join(f"{name}: {text}" for name, text in disguises(value).items())


def got(what: str, value: str) -> None:
    """Remember what came."""
    with Path(os.environ["GOT"]).open("a") as file:
        file.write(json.dumps([what, value]) + "\n")


server = MCPServer(f"leaky {TOKEN}", version="1.0", instructions=told(TOKEN))


@server.tool(description=f"Echo. My token is {TOKEN}; {told(TOKEN)}")
async def echo(text: str, ctx: Context) -> str:
    """Say what was given, in the answer and on the way."""
    got("argument", text)
    for number, each in enumerate(disguises(text).values()):
        await ctx.report_progress(number, 100, each)
    sys.stderr.write(told(text) + "\n")
    sys.stderr.flush()
    return told(text)


@server.tool()
def show(ctx: Context) -> dict[str, str]:
    """Show the environment and the headers."""
    headers = dict(ctx.headers or {})
    got("environment", TOKEN)
    got("headers", headers.get("authorization", ""))
    key = headers.get("authorization", "").removeprefix("Bearer ")
    return {
        "said": told(TOKEN),
        **disguises(TOKEN),
        f"key {TOKEN}": "x",
        "env": str(dict(os.environ)),
        "far": told(key),
    }


@server.tool()
def fail(text: str) -> str:
    """Refuse."""
    raise ToolError(told(text))


@server.tool()
def spill() -> str:
    """Write to standard error in pieces, without an end of the line."""
    text = f"before {TOKEN} behind"
    for half in (text[: len(text) // 2], text[len(text) // 2 :], base64.b64encode(text.encode()).decode()):
        os.write(2, half.encode())
        os.write(2, b"." * 10)
    os.write(2, b"y" * 200_000 + TOKEN.encode() + b"\n")
    return "spilt"


@server.tool()
def die(text: str) -> str:
    """End in the middle of a call, with a word."""
    os.write(2, f"it broke: {text} {TOKEN}".encode())
    os._exit(3)


def main() -> None:
    """Serve."""
    if os.environ.get("STILLBORN"):
        sys.exit(f"no such token: {TOKEN}")
    if sys.argv[1:] == ["http"]:
        import socket

        import uvicorn

        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="error")).run(sockets=[listener])
    else:
        server.run("stdio")


if __name__ == "__main__":
    main()
