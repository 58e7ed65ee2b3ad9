"""A server that speaks MCP by hand, byte by byte, as no honest one would: what it does is the name it is given.

    python raw_server.py ATTACK          one of ANSWERS, LISTS or STARTS of `rawattacks.py`

Revision 2025-11-25. Standard library only, so that it starts in some hundredths of a second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import rawattacks  # type: ignore[import-not-found]  # beside this file, which is run as a script

TOOL = {"name": "t", "description": "A tool.", "inputSchema": {"type": "object"}}
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "raw", "version": "1"},
}


def answer(number: Any, result: Any) -> None:
    """A plain answer."""
    rawattacks.send(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode() + b"\n")


def main() -> None:
    """Serve until the input ends."""
    name = sys.argv[1]
    rawattacks.STARTS.get(name, lambda: None)()
    for line in sys.stdin.buffer:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        if number is None or method is None:
            continue
        if method == "initialize":
            answer(number, rawattacks.HELLOS.get(name, HELLO))
        elif method == "tools/list":
            if name in rawattacks.LISTS:
                rawattacks.LISTS[name](number, (message.get("params") or {}).get("cursor"))
            else:
                answer(number, {"tools": [TOOL]})
        elif method == "tools/call":
            if name in rawattacks.ANSWERS:
                rawattacks.ANSWERS[name](number)
            else:
                answer(number, {"content": [{"type": "text", "text": "well"}]})
        elif method == "ping":
            answer(number, {})


if __name__ == "__main__":
    main()
