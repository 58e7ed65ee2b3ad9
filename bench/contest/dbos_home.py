"""What both contestants on DBOS share: its configuration and the end of a life."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench.contest import contestant
from bench.contest.contestant import Ended, Job, RunAgent

Workflow = Callable[[str], Awaitable[str]]


@contextlib.contextmanager
def configured(job: Job) -> Iterator[None]:
    """DBOS on a SQLite file in WAL mode; workflows are registered, then launched, inside. Shut down at the end."""
    connection = sqlite3.connect(job.database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    config: DBOSConfig = {
        "name": "contest",
        "system_database_url": f"sqlite:///{job.database}",
        "application_version": "1",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    try:
        yield
    finally:
        DBOS.destroy(destroy_registry=True)


async def everybody(job: Job, workflow: Workflow) -> Ended:
    """Start every agent's workflow (its id finds the one of an earlier life) and wait for its result."""
    ended = Ended()

    async def to_the_end(agent: str) -> None:
        with SetWorkflowID(agent):
            handle = await DBOS.start_workflow_async(workflow, agent)
        said = await handle.get_result()
        ended.finished += said == contestant.FINAL
        ended.lost += said != contestant.FINAL

    await contestant.everybody(job, to_the_end)
    return ended


class Workflows:
    """What a contest asks of a contestant on DBOS, around the way to its workflow."""

    def __init__(self, workflow: Callable[[Job], AbstractAsyncContextManager[Workflow]]) -> None:
        self._workflow = workflow

    @contextlib.asynccontextmanager
    async def opened(self, job: Job) -> AsyncIterator[RunAgent]:
        """Workflows from their beginning."""
        async with self._workflow(job) as to_the_end:

            async def run(agent: str) -> str:
                with SetWorkflowID(agent):
                    return await to_the_end(agent)

            yield run

    async def live(self, job: Job) -> Ended:
        """DBOS has resumed what it knows when it is launched; the workflow's id finds it."""
        async with self._workflow(job) as to_the_end:
            return await everybody(job, to_the_end)
