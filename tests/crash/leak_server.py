"""A device that is three processes, as those of people are: a launcher (as npx is one), the server, a worker of it.

    python -c LAUNCHER launch python leak_server.py serve NAME EFFECTS

The tool writes a line into EFFECTS for each call. The worker of the device `five` is stubborn: only SIGKILL ends it.
The path EFFECTS stands in the command line of all, so that `census.py` finds them.
"""

from __future__ import annotations

import os
import subprocess
import sys

import mcp_types
from mcp.server.mcpserver import Context, MCPServer

LAUNCHER = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[2:]))"
GRANDCHILD = """import signal, sys
if sys.argv[1] == 'five': signal.signal(15, signal.SIG_IGN)
while True: signal.pause()"""


def arguments(name: str, effects: str) -> list[str]:
    """What follows `python` in the command of the device."""
    return ["-I", "-S", "-c", LAUNCHER, "launch", sys.executable, __file__, "serve", name, effects]


def main(name: str, effects: str) -> None:
    """Start the worker, and serve."""
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GRANDCHILD, name, effects],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=name == "five",
    )
    server = MCPServer(name, version="1.0")
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @server.tool(annotations=mcp_types.ToolAnnotations(open_world_hint=False))
    def mark(n: int, ctx: Context) -> str:
        """Leave a mark, once."""
        key = dict(ctx.request_context.meta or {})["mains/idempotency-key"]
        os.write(file, f"{name} {key}\n".encode())
        return f"{name} {n}"

    server.run("stdio")


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3])
