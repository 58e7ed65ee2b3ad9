"""What `bus` compares: a kernel with the adder as its device, and the SDK's own client on an adder of its own.

    async with opened(folder, "stdio", answer) as (desk, client, points, program): ...

In memory both run over the SDK's streams in this program; over stdio each has a server process, Mains' below its
supervisor as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import mains
from bench import kernel
from bench.bus_server import server
from bench.child import ROOT
from mains.bus.device import McpDevice
from mains.bus.doors import Doors
from mains.bus.owner import Owner
from mains.bus.secrets import Screened
from mains.bus.spec import DeviceSpec
from mains.bus.terms import Terms
from mains.bus.warden import Confined
from mains.engines.scripted import ScriptedEngine
from mains.home import Home
from mains.kernel.desk import Desk
from mains.vault import Vault

if TYPE_CHECKING:
    from mcp import Client

Way = Literal["memory", "stdio"]
WAYS: tuple[Way, ...] = ("memory", "stdio")
CALLERS = 16
PROGRAM = "---\nname: adder\ndescription: adds\ntools: [receive, box.add]\n---\nAdd.\n"
_COMMAND = (str(ROOT / "bench" / "bus_server.py"),)


class Points:
    """A probe that notes when the kernel stood at each of its points."""

    def __init__(self) -> None:
        self.at_s: defaultdict[str, list[float]] = defaultdict(list)

    def at(self, point: str) -> None:
        """The kernel stands here now."""
        self.at_s[point].append(time.perf_counter())


class Opened(NamedTuple):
    """Both sides, ready and warm."""

    desk: Desk
    client: Client
    points: Points
    program: Path


class Memory:
    """A reach (`mains.bus.reach`) of a server in this program."""

    pid = 0
    heard_at = 0.0

    def __init__(self) -> None:
        self.ended = ""
        self.over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Any]:
        """The streams of the SDK's own transport for tests."""
        async with _memory() as streams:
            yield streams


def _memory() -> Any:
    from mcp.client._memory import InMemoryTransport

    return InMemoryTransport(server())


def _stdio() -> Any:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    return stdio_client(StdioServerParameters(command=sys.executable, args=[*_COMMAND], cwd=str(ROOT)))


@contextlib.asynccontextmanager
async def opened(folder: Path, way: Way, answer: Callable[..., Any]) -> AsyncIterator[Opened]:
    """A kernel whose engine is `answer`, and a client of the SDK."""
    from mcp import Client

    home, points = Home(folder), Points()
    home.prepare()
    home.config.write_text('[[grants]]\nallow = "box.add"\n' + (_configured() if way == "stdio" else ""))
    program = folder / "adder.md"
    program.write_text(PROGRAM)
    engine = ScriptedEngine.of(answer, slots=CALLERS, context_tokens=1_000_000)
    settings = mains.Settings(turns_max=10_000)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(_stdio() if way == "stdio" else _memory(), cache=None))
        await client.list_tools()
        devices = [await _device(home, settings)] if way == "memory" else []
        desk = await stack.enter_async_context(
            mains.open(folder, engines=[engine], devices=devices, settings=settings, probe=points)
        )
        await kernel.until(lambda: any(tool.name == "box.add" for tool in desk._kernel.world.tools()))
        yield Opened(desk, client, points, program)


def _configured() -> str:
    words = ", ".join(f'"{word}"' for word in _COMMAND)
    command = f'command = "{sys.executable}"\nargs = [{words}]\n'
    return f"[devices.box]\n{command}trust_hints = true\ncalls = {CALLERS}\n"


async def _device(home: Home, settings: mains.Settings) -> McpDevice:
    """As the hub makes one, but in memory."""
    vault = Vault(home)
    terms = Terms(
        calls=CALLERS,
        queue_max=settings.device_queue_max,
        start_s=settings.device_start_s,
        idle_s=settings.device_idle_s,
        health_s=settings.device_health_s,
        backoff_s=1.0,
        backoff_ceiling_s=1.0,
        tools_max=settings.device_tools_max,
    )
    device = McpDevice(
        DeviceSpec(name="box", trust_hints=True),
        settings,
        lambda listed, changed: Owner("box", lambda: Screened(Memory(), vault), terms, Doors(), listed, changed),
        home.devices / "box" / "tools.json",
        lambda: None,
        lambda *_: None,
        lambda _: Confined(),
    )
    await device.list()
    return device
