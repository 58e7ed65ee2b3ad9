"""The routes of the files of a process.

GET  processes/PID/files?folder=PATH         a folder of its workspace
GET  processes/PID/versions                  what it changed, as far as that is kept
POST processes/PID/files/undo {path, force}
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import body_of, pid_of, respond
from mains.kernel.desk import Desk


class UndoOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an undo: the arguments of `FileDesk.files_undo`."""

    path: str = ""
    force: bool = False


class Files:
    """The routes that show and take back what processes wrote."""

    def __init__(self, desk: Desk, bytes_max: int) -> None:
        self._desk = desk
        self._bytes_max = bytes_max

    async def list(self, request: Request) -> Response:
        path = request.query_params.get("folder", "")
        return respond({"text": await self._desk.files_listing(pid_of(request), path)})

    async def versions(self, request: Request) -> Response:
        return respond(await self._desk.files_log(pid_of(request)))

    async def undo(self, request: Request) -> Response:
        order = await body_of(request, UndoOrder, self._bytes_max)
        return respond(await self._desk.files_undo(pid_of(request), order.path, force=order.force))
