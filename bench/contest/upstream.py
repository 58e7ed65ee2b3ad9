"""A model's endpoint in a process of its own: the OpenAI dialect, no latency of its own, the same for everybody.

    python -m bench.contest.upstream          prints its port; ends when its standard input ends

    POST /{turns}/v1/chat/completions         a call of the tool `count` until {turns} results are there, then an end
    POST /{turns}@{ms}/v1/chat/completions    the same, answers after up to so many milliseconds (by agent and turn)
    POST /hold/v1/chat/completions            no answer until somebody asks for /release
    GET  /state                               {"calls": answered or held, "held": waiting now}
    GET  /release                             answers those that are held (with an end); the next ones are held again
    GET  /kill/{pid}/{calls}/{microseconds}   SIGKILL to that process, so long after so many more calls have come in

Streamed when the request says so. What it decides, it decides by the number of tool messages in the request, so that a
call that is made again is answered in the same way. The name of the agent is the first `agent-N` in the body.

It must never be what a contest measures: bytes in, bytes out, no framework. `bench.contest.ceiling` shows that.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import sys
import zlib
from typing import Any, cast

import msgspec
import uvloop

_AGENT = re.compile(rb"agent-\d+")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
FINAL = "counted to the end"


class _Message(msgspec.Struct):
    role: str


class Asked(msgspec.Struct):
    """The part of a request that decides the answer."""

    messages: list[_Message]
    stream: bool = False


_decoder = msgspec.json.Decoder(Asked)


@functools.lru_cache(maxsize=4096)
def answer(agent: str, done: int, turns: int, stream: bool) -> bytes:
    """The whole HTTP response for the request of `agent` that holds `done` tool results."""
    if done >= turns:
        message: dict[str, Any] = {"role": "assistant", "content": FINAL}
    else:
        arguments = json.dumps({"agent": agent, "n": done})
        function = {"name": "count", "arguments": arguments}
        calls = [{"index": 0, "id": f"call_{done}", "type": "function", "function": function}]
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    usage = {"prompt_tokens": 60 + 30 * done, "completion_tokens": 12, "total_tokens": 72 + 30 * done}
    finish = "stop" if done >= turns else "tool_calls"
    return _streamed(message, finish, usage) if stream else _whole(message, finish, usage)


def _whole(message: dict[str, Any], finish: str, usage: dict[str, int]) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    body = json.dumps({**_envelope("chat.completion"), "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _streamed(message: dict[str, Any], finish: str, usage: dict[str, int]) -> bytes:
    envelope = _envelope("chat.completion.chunk")
    pieces: list[dict[str, Any]] = [
        {**envelope, "choices": [{"index": 0, "delta": message, "finish_reason": None}]},
        {**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]},
        {**envelope, "choices": [], "usage": usage},
    ]
    events = [f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def _envelope(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "counting"}


class Endpoint:
    """What all connections share: the count, and who is held."""

    def __init__(self) -> None:
        self.calls = 0
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._kill: tuple[int, int, float] | None = None  # at which call, whom, and after how many seconds

    def reply(self, transport: asyncio.Transport, path: str, body: bytes) -> None:
        """Answer one request, now or when it is released."""
        if path.endswith("/chat/completions"):
            self._complete(transport, path.split("/")[1], body)
            return
        if path == "/release":
            held, self._held = self._held, []
            for waiting, response in held:
                waiting.write(response)
        if path.startswith("/kill/"):
            pid, calls, delay_us = (int(each) for each in path.split("/")[2:])
            self._kill = (self.calls + calls, pid, delay_us / 1e6)
        held_now = sum(not waiting.is_closing() for waiting, _ in self._held)
        state = json.dumps({"calls": self.calls, "held": held_now}).encode()
        transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(state), state))

    def _complete(self, transport: asyncio.Transport, mode: str, body: bytes) -> None:
        self.calls += 1
        if self._kill is not None and self.calls >= self._kill[0]:
            _, pid, delay_s = self._kill
            self._kill = None
            asyncio.get_running_loop().call_later(delay_s, _kill, pid)
        asked = _decoder.decode(body)
        found = _AGENT.search(body)
        agent = found[0].decode() if found else "agent-0"
        done = sum(message.role == "tool" for message in asked.messages)
        if mode == "hold":
            self._held.append((transport, answer(agent, done, done, asked.stream)))
            return
        turns, _, wait_ms = mode.partition("@")
        response = answer(agent, done, int(turns), asked.stream)
        if wait_ms:
            share = zlib.crc32(f"{agent} {done}".encode()) % 1_000 / 1_000
            asyncio.get_running_loop().call_later(share * int(wait_ms) / 1e3, transport.write, response)
        else:
            transport.write(response)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, signal.SIGKILL)


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests one after another, each with a Content-Length."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of a stream, as create_server makes them

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            assert self._transport is not None
            self._endpoint.reply(self._transport, head.split(b" ", 2)[1].decode(), body)


async def serve() -> None:
    """Serve on a free port of this machine until standard input ends."""
    loop = asyncio.get_running_loop()
    endpoint = Endpoint()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(serve())
