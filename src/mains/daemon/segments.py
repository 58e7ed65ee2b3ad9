"""The routes of shared segments.

GET  segments, segment?name=NAME[&start=N&most=N]
POST segments {name, text, append_only, account}      POST segment {name, text}: append
POST segment/remove {name}
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.daemon.body import body_of, number_of, respond
from mains.errors import UsageError
from mains.kernel.desk import Desk
from mains.kernel.segmentdesk import PAGES_SHOWN_MAX


class SegmentOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new segment: the arguments of `SegmentDesk.segment_make`."""

    name: str
    text: str = ""
    append_only: bool = False
    account: str = ""


class SegmentText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a text that is appended."""

    name: str
    text: str


class SegmentName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an order about a segment."""

    name: str


class Segments:
    """The routes that order and ask about segments."""

    def __init__(self, desk: Desk, bytes_max: int) -> None:
        self._desk = desk
        self._bytes_max = bytes_max

    async def make(self, request: Request) -> Response:
        order = await body_of(request, SegmentOrder, self._bytes_max)
        made = await self._desk.segment_make(
            order.name, order.text, append_only=order.append_only, account=order.account
        )
        return respond(made)

    async def append(self, request: Request) -> Response:
        order = await body_of(request, SegmentText, self._bytes_max)
        return respond(await self._desk.segment_append(order.name, order.text))

    async def list(self, _: Request) -> Response:
        return respond(await self._desk.segments())

    async def segment(self, request: Request) -> Response:
        name = request.query_params.get("name")
        if name is None:
            raise UsageError("`name` is missing")
        most = number_of(request, "most") or PAGES_SHOWN_MAX
        return respond(await self._desk.segment(name, number_of(request, "start"), most))

    async def remove(self, request: Request) -> Response:
        order = await body_of(request, SegmentName, self._bytes_max)
        return respond(await self._desk.segment_remove(order.name))
