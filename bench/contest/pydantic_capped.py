"""pydantic-ai under a cap, in three ways that its documentation gives.

    run      `UsageLimits(request_limit=...)`, which counts the requests of a run
    shared   the same, with one `RunUsage` that all runs are given: how agents that delegate share a limit
    spend    pydantic-ai-harness: one `SpendLimits` with a budget of money for all, each response at a fixed price

The harness says itself that concurrent runs can each pass its check before any of them has recorded anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from pydantic_ai import Agent, RunUsage, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai_harness.spend import Budget, SpendLimits

from bench.contest import contestant
from bench.contest.contestant import CALL_PRICE, CAP_CALLS, REFUSED, Job, RunAgent

_PRICE = Decimal(CALL_PRICE)


async def count(agent: str, n: int) -> str:
    """Count something, once."""
    return contestant.count(agent, n)


def _spend() -> SpendLimits[None]:
    budget: Budget[None] = Budget(usd=CAP_CALLS * _PRICE, window="total")
    return SpendLimits(budgets=[budget], price=lambda _: _PRICE)


def _usage(mode: str) -> dict[str, Any]:
    limits = UsageLimits(request_limit=None if mode == "spend" else CAP_CALLS)
    return {"usage_limits": limits} | ({"usage": RunUsage()} if mode == "shared" else {})


@asynccontextmanager
async def opened(job: Job) -> AsyncIterator[RunAgent]:
    """Agents under the cap."""
    model = OpenAIChatModel("counting", provider=OpenAIProvider(base_url=job.url, api_key="none"))
    counter = Agent(
        model,
        deps_type=type(None),
        instructions=contestant.PROSE,
        tools=[count],
        capabilities=[_spend()] if job.mode == "spend" else [],
    )
    usage = _usage(job.mode)

    async def run(agent: str) -> str:
        try:
            result = await counter.run(f"Count for {agent}.", **usage)
        except UsageLimitExceeded:
            return REFUSED
        return str(result.output)

    yield run


if __name__ == "__main__":
    contestant.main(opened)
