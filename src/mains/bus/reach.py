"""How a device is reached: what an owner asks of a child process (`child.py`) and of a server elsewhere (`remote.py`).

A `Reach` is used for one connection. Its streams carry messages of the SDK's; they are entered and left by one task.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Reach(Protocol):
    """One connection to a device. `ended` says why it is `over`."""

    ended: str

    @property
    def pid(self) -> int:
        """The first process; 0 where there is none of ours."""
        ...

    @property
    def over(self) -> asyncio.Event:
        """Whether it is over."""
        ...

    @property
    def heard_at(self) -> float:
        """When the device last said anything, in seconds of the event loop's clock."""
        ...

    def streams(self) -> AbstractAsyncContextManager[Any]:
        """The streams of messages to and from the device. Raises DeviceError, ConfigError, OSError."""
        ...
