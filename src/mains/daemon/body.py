"""What a request carries, and what an answer does: bodies of a bounded size, numbers in a query, JSON.

body_of(request, kind, bytes_max)     the body as a struct
number_of, seconds_of, pid_of         parts of the address
respond(value)                        a value as JSON
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from mains.errors import LimitError, UsageError

T = TypeVar("T")


def respond(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def body_of(request: Request, kind: type[T], bytes_max: int) -> T:
    """The body of a request, as `kind`. Raises UsageError, LimitError."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > bytes_max:
            raise LimitError(f"the request has more than {bytes_max:,} bytes (request_bytes_max)")
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the request's body cannot be read: {error}") from error


def number_of(request: Request, name: str) -> int:
    """A whole number in the query; 0 when it is not given. Raises UsageError."""
    text = request.query_params.get(name, "0")
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(f"`{name}` must be a whole number, not {text[:40]!r}")
    return int(text)


def seconds_of(request: Request, name: str) -> float:
    """A number of seconds in the query; infinite when it is not given. Raises UsageError."""
    text = request.query_params.get(name, "inf")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise UsageError(f"`{name}` must be a number of seconds, not {text[:40]!r}")
    return seconds


def pid_of(request: Request) -> int:
    """The pid in the path; one that no journal can hold names no process."""
    return min(int(request.path_params["pid"]), 2**63 - 1)
