"""The bare loop: what somebody writes by hand. Each event (reply, result) is a row, committed before the next act.

sqlite3, WAL, `synchronous=FULL`, one connection on the event loop, a commit for each event; the same HTTP by aiohttp.
No limits, no states, no recovery: the floor of cost for "it is on the disk".
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import uvloop

from bench.contest import contestant
from bench.contest.contestant import Job, RunAgent

TOOL = {
    "type": "function",
    "function": {
        "name": "count",
        "description": "Count something, once.",
        "parameters": {
            "type": "object",
            "properties": {"agent": {"type": "string"}, "n": {"type": "integer"}},
            "required": ["agent", "n"],
        },
    },
}


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[RunAgent]:
    """Loops from their beginning."""
    connection = sqlite3.connect(job.database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, agent TEXT, body TEXT)")

    def keep(agent: str, message: dict[str, Any]) -> dict[str, Any]:
        connection.execute("INSERT INTO event (agent, body) VALUES (?, ?)", (agent, json.dumps(message)))
        return message

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def run(agent: str) -> str:
            messages: list[dict[str, Any]] = [
                {"role": "system", "content": contestant.PROSE},
                keep(agent, {"role": "user", "content": f"Count for {agent}."}),
            ]
            while True:
                body = {"model": "counting", "messages": messages, "tools": [TOOL]}
                async with session.post(f"{job.url}/chat/completions", json=body) as response:
                    said = (await response.json())["choices"][0]["message"]
                messages.append(keep(agent, said))
                if not said.get("tool_calls"):
                    return str(said["content"])
                for call in said["tool_calls"]:
                    result = contestant.count(**json.loads(call["function"]["arguments"]))
                    messages.append(keep(agent, {"role": "tool", "tool_call_id": call["id"], "content": result}))

        yield run
    connection.close()


if __name__ == "__main__":
    contestant.main(opened, loop_factory=uvloop.new_event_loop)
