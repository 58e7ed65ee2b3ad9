"""LangChain: `create_agent` with its limit on model calls, a thread for each agent.

The limit counts what a thread and what a run has called; there is none over several of either. All agents share one
middleware object, and one agent: that is as far as its documentation goes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from bench.contest import contestant
from bench.contest.contestant import CAP_CALLS, REFUSED, Job, RunAgent


@tool
async def count(agent: str, n: int) -> str:
    """Count something, once."""
    return contestant.count(agent, n)


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[RunAgent]:
    """Agents under the cap."""
    limit = ModelCallLimitMiddleware(thread_limit=CAP_CALLS, run_limit=CAP_CALLS, exit_behavior="error")
    model = ChatOpenAI(model="counting", base_url=job.url, api_key="none", max_retries=0)
    counter = create_agent(
        model, [count], system_prompt=contestant.PROSE, middleware=[limit], checkpointer=InMemorySaver()
    )

    async def run(agent: str) -> str:
        begin = {"messages": [{"role": "user", "content": f"Count for {agent}."}]}
        try:
            state = await counter.ainvoke(begin, {"configurable": {"thread_id": agent}})
        except ModelCallLimitExceededError:
            return REFUSED
        return str(state["messages"][-1].content)

    yield run


if __name__ == "__main__":
    contestant.main(opened)
