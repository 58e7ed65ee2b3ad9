"""How a device is reached: what an owner asks of a child process (`child.py`) and of a server elsewhere (`remote.py`).

A `Reach` is used for one connection. Its streams carry messages of the SDK's; they are entered and left by one task.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Reach(Protocol):
    """One connection to a device. `pid` is 0 where there is no process of ours; `ended` says why it is `over`."""

    pid: int
    ended: str
    over: asyncio.Event
    heard_at: float  # seconds of the event loop's clock: when the device last said anything

    def streams(self) -> AbstractAsyncContextManager[Any]:
        """The streams of messages to and from the device. Raises DeviceError, ConfigError, OSError."""
        ...
