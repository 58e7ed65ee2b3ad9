"""The routes of notes: what a person sees of them, and changes.

    GET  notes[?scope=...&program=NAME&account=NAME&all=1], notes/N
    POST notes {text, program, account, pid}, notes/N {text}, notes/N/forget

A note is named by its number in the path.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import body_of, respond
from mains.kernel.desk import Desk


class NoteOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new note: the arguments of `Notebook.add`."""

    text: str
    program: str = ""
    account: str = ""
    pid: int = 0


class NoteText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change: the new text."""

    text: str


class Notes:
    """The routes that ask about notes and change them."""

    def __init__(self, desk: Desk, bytes_max: int) -> None:
        self._notes = desk.notes
        self._bytes_max = bytes_max

    async def list(self, request: Request) -> Response:
        query = {name: request.query_params.get(name, "") for name in ("scope", "program", "account")}
        return respond(await self._notes.ls(**query, every=request.query_params.get("all") == "1"))

    async def show(self, request: Request) -> Response:
        return respond(await self._notes.show(_number(request)))

    async def add(self, request: Request) -> Response:
        order = await body_of(request, NoteOrder, self._bytes_max)
        added = await self._notes.add(order.text, program=order.program, account=order.account, pid=order.pid)
        return respond(added)

    async def edit(self, request: Request) -> Response:
        order = await body_of(request, NoteText, self._bytes_max)
        return respond(await self._notes.edit(_number(request), order.text))

    async def forget(self, request: Request) -> Response:
        return respond(await self._notes.remove(_number(request)))


def _number(request: Request) -> int:
    """The number in the path; one that no journal can hold names no note."""
    return min(int(request.path_params["number"]), 2**63 - 1)
