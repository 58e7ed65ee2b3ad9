"""What an owner of a connection is told - the limits of its device - and what it tells: a listing, a call not made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mains.errors import DeviceError

if TYPE_CHECKING:
    import mcp_types


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one device. Times in seconds."""

    calls: int
    queue_max: int
    start_s: float
    idle_s: float
    health_s: float
    backoff_s: float
    backoff_ceiling_s: float
    tools_max: int
    protocol: str = ""


class Listed(NamedTuple):
    """What a server lists: its tools, its name and version, and the revision that is spoken."""

    tools: list[mcp_types.Tool]
    server: str
    protocol: str


class NotMadeError(DeviceError):
    """The call was not made: nothing happened. Its text says why, and is for the model. It never leaves the bus."""


class ExpiredError(NotMadeError):
    """The server has forgotten the connection: another one may serve the call."""
