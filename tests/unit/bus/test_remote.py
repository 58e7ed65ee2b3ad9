"""A device over streamable HTTP, and servers that answer with too much, with nothing, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bus.rig import LIMIT_S, SERVER, Rig

from mains.errors import DeviceError
from mains.kernel.ports import Done, Failed


@asynccontextmanager
async def serving(traces: str, port: int = 0) -> AsyncIterator[tuple[Process, int]]:
    """The real server, over HTTP; its process and its port."""
    env = {**os.environ, "TRACES": traces, "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "http", env=env, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            found = int(await process.stdout.readline())
        yield process, found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A hub, closed at the end."""
    rig = Rig(tmp_path, device_message_bytes_max=256 * 1024)
    yield rig
    await rig.close()


@pytest.mark.parametrize("protocol", ["2025-11-25", "2026-07-28", ""])
async def test_a_server_elsewhere_is_a_device_like_any_other(rig: Rig, protocol: str) -> None:
    async with serving(rig.traces.port) as (_, port):
        await rig.hub.add("box", {"url": f"http://127.0.0.1:{port}/mcp", "protocol": protocol})
        assert await rig.call("add", a=2, b=3) == Done("5")
        assert isinstance(await rig.call("fail"), Failed)
        assert await rig.call("steps", n=2) == Done("done")
        assert rig.progress[0] == "box: 1 of 2 step 1"
        assert await rig.call("count_meta") == Done("7-call_1_1")
        waiting = asyncio.create_task(rig.call("wait", name="w"))
        await rig.traces.wait_for("begun w")
        waiting.cancel()
        await rig.traces.wait_for("ended w")
        with pytest.raises(DeviceError):
            await rig.call("big", bytes=1_000_000)  # of that answer only
        assert await rig.call("add", a=1, b=1) == Done("2")
        assert rig.hub.state("box").starts == 1


@pytest.mark.parametrize("protocol", ["2025-11-25", "2026-07-28"])
async def test_a_server_that_dies_and_comes_back(rig: Rig, protocol: str) -> None:
    async with serving(rig.traces.port) as (process, port):
        await rig.hub.add("box", {"url": f"http://127.0.0.1:{port}/mcp", "protocol": protocol})
        waiting = asyncio.create_task(rig.call("wait", name="w"))
        await rig.traces.wait_for("begun w")
        process.send_signal(signal.SIGKILL)
        with pytest.raises(DeviceError):
            await waiting
        await process.wait()
    refused = await rig.call("add", a=1, b=1)
    assert isinstance(refused, Failed)
    assert "no connection to 127.0.0.1" in refused.text
    async with serving(rig.traces.port, port):
        await rig.hub.restart("box")
        assert await rig.call("add", a=1, b=1) == Done("2")


async def test_a_server_that_has_forgotten_us_is_greeted_again(rig: Rig) -> None:
    async with serving(rig.traces.port) as (process, port):
        await rig.hub.add("box", {"url": f"http://127.0.0.1:{port}/mcp", "protocol": "2025-11-25"})
        process.kill()
        await process.wait()
        async with serving(rig.traces.port, port):
            assert await rig.call("add", a=1, b=1) == Done("2")
            assert rig.hub.state("box").starts == 2


Answer = Callable[[asyncio.StreamWriter], None]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[int]:
    """A server that answers every request with these bytes, and leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            await reader.readexactly(length)
            answer(writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: "


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"application/json\r\n\r\n" + b"x" * 1_000_000,
        HEAD + b"text/event-stream\r\n\r\n" + b"data: " + b"x" * 1_000_000,
        HEAD + b"text/event-stream\r\n\r\n" + b": ping\n\n" * 300_000,
        HEAD + b"application/json\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b" + b"\x00" * 50,
        HEAD + b"text/html\r\n\r\n<html>",
        b"HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        b"no http at all\r\n\r\n",
        b"",
    ],
    ids=[
        "long body",
        "long event",
        "endless events",
        "compressed",
        "html",
        "elsewhere",
        "broken",
        "nonsense",
        "nothing",
    ],
)
async def test_a_hostile_server_is_one_clear_error(rig: Rig, data: bytes) -> None:
    async with answering(lambda writer: writer.write(data)) as port, asyncio.timeout(LIMIT_S):
        with pytest.raises(DeviceError) as caught:
            await rig.hub.add("box", {"url": f"http://127.0.0.1:{port}/mcp"})
    assert str(caught.value).startswith("device box: ")
    assert "\n" not in str(caught.value)
    assert rig.hub.states() == []


class Clinging:
    """A server of the older revision that does what it should, but never answers a farewell."""

    def __init__(self) -> None:
        self.farewells = 0
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
            )
            body = json.loads(await reader.readexactly(length) or b"{}")
            if head.startswith(b"DELETE"):
                self.farewells += 1
                await reader.read()
                self.gone.set()
                return
            writer.write(self.answer(body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    def answer(body: Any) -> bytes:
        """What is answered."""
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "c", "version": "1"},
        }
        results = {"initialize": hello, "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
        if body.get("method") not in results:
            status = b"202 Accepted" if body.get("method") else b"405 Method Not Allowed"
            return b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        text = json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": results[body["method"]]}).encode()
        return HEAD + b"application/json\r\nmcp-session-id: s\r\ncontent-length: %d\r\n\r\n" % len(text) + text


async def test_a_server_that_never_lets_go_is_left_all_the_same(rig: Rig) -> None:
    clinging = Clinging()
    async with await asyncio.start_server(clinging.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await rig.hub.add("box", {"url": f"http://127.0.0.1:{port}/mcp", "protocol": "2025-11-25"})
        async with asyncio.timeout(8):
            await rig.hub.remove("box")
            await clinging.gone.wait()
        assert clinging.farewells == 1
