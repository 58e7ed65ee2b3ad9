"""A connection to the daemon: HTTP over the socket of its home, one request and its answer. The standard library only.

exchange(connection, method, target(path, query), body)     the whole answer, as a plain object
begin(...)                                                  the head of an answer whose lines are read one by one
greets(home, timeout_s)                                     whether a daemon answers
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mains.daemon import wire
from mains.daemon.launch import connect
from mains.home import Home

LINE_BYTES_MAX = 64 * 1024 * 1024
LOST = (http.client.HTTPException, ConnectionError)
"""What is raised when the daemon ends before it has answered."""


class Refused(Exception):  # noqa: N818 - never leaves the client
    """The daemon was ending and did nothing of the request."""


class Connection(http.client.HTTPConnection):
    """HTTP over the socket of a home."""

    def __init__(self, home: Home, timeout_s: float) -> None:
        super().__init__("mains", timeout=timeout_s)
        self._home = home
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = connect(self._home, self._timeout_s)


def greets(home: Home, timeout_s: float) -> bool:
    """Whether a daemon answers."""
    connection = Connection(home, timeout_s)
    try:
        return bool(exchange(connection, "GET", target("hello", {})))
    except (*LOST, OSError, Refused):
        return False
    finally:
        connection.close()


def target(path: str, query: Mapping[str, object]) -> str:
    """The address of a route."""
    return f"/v1/{path}" + (f"?{urlencode(query)}" if query else "")


def begin(connection: Connection, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
    """Send a request and read the head of its answer. Raises what the daemon says, Refused, OSError."""
    data = None if body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
    response = connection.getresponse()
    if response.status == 200:
        return response
    try:
        told = json.loads(response.read(LINE_BYTES_MAX))
    except ValueError:
        told = {"text": f"the daemon answered with status {response.status}"}
    if told.get("refused"):
        raise Refused
    raise wire.unpack(told)


def exchange(connection: Connection, method: str, path: str, body: object = None) -> Any:
    """Send a request and read the whole answer."""
    return json.loads(begin(connection, method, path, body).read())
