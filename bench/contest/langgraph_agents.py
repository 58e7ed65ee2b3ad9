"""LangGraph: a graph of two nodes (model, tools) with its asynchronous SQLite checkpoints, as documented.

Modes: `sync` and `async` are LangGraph's durability modes (`async` is its default: the next step starts before the
checkpoint of the last one is written). `sync lean` is `sync` with a bare aiohttp call in place of `ChatOpenAI`, to show
what LangGraph itself costs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, convert_to_openai_messages
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from bench.contest import contestant
from bench.contest.contestant import Ended, Job, RunAgent


def _tool(job: Job) -> Any:
    @tool
    async def count(agent: str, n: int) -> str:
        """Count something, once."""
        return contestant.record(job.folder, agent, n) if job.job == "life" else contestant.count(agent, n)

    return count


def _lean(job: Job, session: aiohttp.ClientSession, tools: list[Any]) -> Any:
    described = [convert_to_openai_tool(each) for each in tools]

    async def call(state: MessagesState) -> dict[str, Any]:
        body = {"model": "counting", "messages": convert_to_openai_messages(state["messages"]), "tools": described}
        async with session.post(f"{job.url}/chat/completions", json=body) as response:
            said = (await response.json())["choices"][0]["message"]
        calls = [
            {"id": each["id"], "name": each["function"]["name"], "args": json.loads(each["function"]["arguments"])}
            for each in said.get("tool_calls") or ()
        ]
        return {"messages": [AIMessage(said["content"] or "", tool_calls=calls)]}

    return call


def _client(job: Job, tools: list[Any]) -> Any:
    model = ChatOpenAI(model="counting", base_url=job.url, api_key="none", max_retries=0).bind_tools(tools)

    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return call


@asynccontextmanager
async def _graph(job: Job) -> AsyncIterator[Any]:
    tools = [_tool(job)]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        AsyncSqliteSaver.from_conn_string(str(job.database)) as saver,
    ):
        builder = StateGraph(MessagesState)
        builder.add_node("model", _lean(job, session, tools) if "lean" in job.mode else _client(job, tools))
        builder.add_node("tools", ToolNode(tools))
        builder.add_edge(START, "model")
        builder.add_conditional_edges("model", tools_condition)
        builder.add_edge("tools", "model")
        yield builder.compile(checkpointer=saver)


def _thread(agent: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": agent}, "recursion_limit": 1_000}


def _begin(agent: str) -> dict[str, Any]:
    return {"messages": [SystemMessage(contestant.PROSE), HumanMessage(f"Count for {agent}.")]}


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[RunAgent]:
    """Agents from their beginning."""
    async with _graph(job) as graph:

        async def run(agent: str) -> str:
            state = await graph.ainvoke(_begin(agent), _thread(agent), durability=job.mode.split()[0])
            return str(state["messages"][-1].content)

        yield run


async def live(job: Job) -> Ended:
    """Start each agent, or resume it as the documentation says: no input, the same thread, when `next` is not empty."""
    ended = Ended()
    async with _graph(job) as graph:

        async def to_the_end(agent: str) -> None:
            seen = await graph.aget_state(_thread(agent))
            if seen.created_at is None:
                begin = _begin(agent)
                ended.note("begun")
            elif seen.next:
                begin = None
                ended.note("resumed")
            else:
                begin = {}
            state = seen.values
            if begin != {}:
                state = await graph.ainvoke(begin, _thread(agent), durability=job.mode.split()[0])
            said = state["messages"][-1].content if state.get("messages") else ""
            ended.finished += said == contestant.FINAL
            ended.lost += said != contestant.FINAL

        await contestant.everybody(job, to_the_end)
    return ended


if __name__ == "__main__":
    contestant.main(opened, live)
