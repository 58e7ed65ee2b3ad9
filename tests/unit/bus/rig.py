"""A hub in a home of its own, with a real MCP server as its device, and what that server tells of its doings."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mains.bus.doors import Doors
from mains.bus.hub import Hub, Seams
from mains.bus.mechanism import Mechanism, find_mechanism
from mains.home import Home
from mains.kernel.devicelist import DeviceList
from mains.kernel.ports import CallContext
from mains.settings import Settings

SERVER = Path(__file__).with_name("mcp_server.py")
LIMIT_S = 20.0
QUICK = {"device_backoff_ms": 20, "device_health_s": 0.3, "device_timeout_s": 15.0}


class Traces:
    """What servers tell, in order. A confined device has no Unix sockets, so it is told over the loopback."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = str(self._socket.getsockname()[1])
        self._socket.setblocking(False)

    async def wait_for(self, words: str) -> str:
        """The next thing told that begins with these words; others before it are passed over."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                said = (await asyncio.get_running_loop().sock_recv(self._socket, 1000)).decode()
                if said.startswith(words):
                    return said

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class WatchedHub(Hub):
    """A hub that says when it offers something else."""

    def __init__(self, *given: Any) -> None:
        self.offered = asyncio.Event()
        super().__init__(*given)

    def _offer(self) -> None:
        super()._offer()
        self.offered.set()


class Rig:
    """See the module's header."""

    def __init__(
        self,
        folder: Path,
        *,
        doors: Doors | None = None,
        mechanism: Callable[[], Mechanism] = find_mechanism,
        **settings: Any,
    ) -> None:
        self.home = Home(folder / "home")
        self.home.prepare()
        self.traces = Traces()
        self.progress: list[str] = []
        seams = Seams(
            doors or Doors(),
            progress=lambda _, device, text: self.progress.append(f"{device}: {text}"),
            mechanism=mechanism,
        )
        self.settings = Settings(**(QUICK | settings))
        self.hub = WatchedHub(self.home, self.settings, DeviceList([]), seams)
        self.context = CallContext(7, "7-call_1_1", folder, 1)

    @property
    def entry(self) -> dict[str, Any]:
        """The server, as a device."""
        return {"command": sys.executable, "args": [str(SERVER)], "env": {"TRACES": self.traces.port}}

    async def add(self, name: str = "box", **more: Any) -> None:
        """Add the server as a device."""
        await self.hub.add(name, {**self.entry, **more})

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool of the device `box` as the kernel does."""
        device, inner = self.hub.find(f"box.{tool}")
        return await device.call(inner, arguments, self.context)

    async def close(self) -> None:
        """End everything."""
        await self.hub.close()
        self.traces.close()


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no corpse."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def wait_gone(pid: int) -> None:
    """Wait for the end of a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
