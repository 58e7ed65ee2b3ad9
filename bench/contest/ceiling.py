"""What the upstream can do at most: as many bare connections as agents, each asking again as soon as it has an answer.

The asker is a process of its own and costs more than the upstream does; so the figure is a floor of the ceiling.
"""

from __future__ import annotations

import asyncio
import json
import time

import uvloop

CALLS = 1_000  # of each connection
_BODY = json.dumps(
    {
        "model": "counting",
        "messages": [
            {
                "role": "system",
                "content": "You count. Call the tool `count` as you are told, then say that you are done.",
            },
            {"role": "user", "content": "Count for agent-7."},
        ],
        "stream": True,
    }
).encode()
_REQUEST = b"POST /5/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)


def calls_per_s(port: int, connections: int) -> float:
    """Answered calls a second."""
    return uvloop.run(_calls_per_s(port, connections))


async def _calls_per_s(port: int, connections: int) -> float:
    async def ask(calls: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(calls):
            writer.write(_REQUEST)
            await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()

    await ask(100)
    start = time.perf_counter()
    await asyncio.gather(*(ask(CALLS) for _ in range(connections)))
    return connections * CALLS / (time.perf_counter() - start)
