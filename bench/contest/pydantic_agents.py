"""pydantic-ai on DBOS: an agent with the durability capability inside a workflow, its tool a step, as documented.

The database is SQLite. DBOS leaves SQLite's journal as it finds it (a rollback journal, which syncs more); here it is
set to WAL before the first launch, which is faster. `synchronous` is FULL, SQLite's default.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dbos import DBOS
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.durable_exec.dbos import DBOSDurability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from bench.contest import contestant, dbos_home
from bench.contest.contestant import Job

UNLIMITED = UsageLimits(request_limit=None)


@asynccontextmanager
async def _workflow(job: Job) -> AsyncIterator[dbos_home.Workflow]:
    with dbos_home.configured(job):

        @DBOS.step()
        async def count(agent: str, n: int) -> str:
            """Count something, once."""
            return contestant.record(job.folder, agent, n) if job.job == "life" else contestant.count(agent, n)

        model = OpenAIChatModel("counting", provider=OpenAIProvider(base_url=job.url, api_key="none"))
        counter = Agent(
            model, name="counter", instructions=contestant.PROSE, tools=[count], capabilities=[DBOSDurability()]
        )

        @DBOS.workflow()
        async def to_the_end(agent: str) -> str:
            result = await counter.run(f"Count for {agent}.", usage_limits=UNLIMITED)
            return result.output

        DBOS.launch()
        yield to_the_end


if __name__ == "__main__":
    workflows = dbos_home.Workflows(_workflow)
    contestant.main(workflows.opened, workflows.live)
