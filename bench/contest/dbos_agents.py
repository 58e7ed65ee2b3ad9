"""DBOS alone: a workflow whose steps are a bare HTTP call to the model and the tool, written by hand.

Mode `steps`: no HTTP at all; each "model call" and each tool is a step that does nothing. A turn is still a model step
and (but for the last) a tool step. Settings as in `pydantic_agents`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from dbos import DBOS

from bench.contest import contestant, dbos_home
from bench.contest.contestant import Job

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
async def _workflow(job: Job) -> AsyncIterator[dbos_home.Workflow]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with dbos_home.configured(job):
            workflow = _steps(job) if job.mode == "steps" else _agent(job, session)
            DBOS.launch()
            yield workflow


def _agent(job: Job, session: aiohttp.ClientSession) -> dbos_home.Workflow:
    @DBOS.step()
    async def model(messages: list[dict[str, Any]]) -> dict[str, Any]:
        body = {"model": "counting", "messages": messages, "tools": [TOOL]}
        async with session.post(f"{job.url}/chat/completions", json=body) as response:
            said: dict[str, Any] = (await response.json())["choices"][0]["message"]
            return said

    @DBOS.step()
    async def count(agent: str, n: int) -> str:
        return contestant.record(job.folder, agent, n) if job.job == "life" else contestant.count(agent, n)

    @DBOS.workflow()
    async def to_the_end(agent: str) -> str:
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": contestant.PROSE},
            {"role": "user", "content": f"Count for {agent}."},
        ]
        while calls := (said := await model(messages)).get("tool_calls"):
            messages.append(said)
            for call in calls:
                result = await count(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return str(said["content"])

    return to_the_end


def _steps(job: Job) -> dbos_home.Workflow:
    @DBOS.step()
    async def model(agent: str, n: int) -> str:
        return contestant.FINAL if n == job.turns else "count"

    @DBOS.step()
    async def count(agent: str, n: int) -> str:
        return contestant.count(agent, n)

    @DBOS.workflow()
    async def to_the_end(agent: str) -> str:
        n = 0
        while (said := await model(agent, n)) != contestant.FINAL:
            await count(agent, n)
            n += 1
        return said

    return to_the_end


if __name__ == "__main__":
    workflows = dbos_home.Workflows(_workflow)
    contestant.main(workflows.opened, workflows.live)
