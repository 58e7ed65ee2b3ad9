"""The routes of memory.

GET  memory                                  the home's
GET  processes/PID/memory                    the page table of a process
GET  processes/PID/seen?at=SEQ               what its model was shown in the last call until that event
GET  processes/PID/diff?other=PID[&full=1]   where two contexts part
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import number_of, pid_of, respond
from mains.kernel.desk import Desk


class Memory:
    """What can be seen of memory."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def machine(self, _: Request) -> Response:
        return respond(await self._desk.memory())

    async def table(self, request: Request) -> Response:
        return respond(await self._desk.mem(pid_of(request)))

    async def seen(self, request: Request) -> Response:
        return respond(await self._desk.seen(pid_of(request), number_of(request, "at")))

    async def diff(self, request: Request) -> Response:
        full = request.query_params.get("full") == "1"
        return respond(await self._desk.diff(pid_of(request), number_of(request, "other"), full=full))
