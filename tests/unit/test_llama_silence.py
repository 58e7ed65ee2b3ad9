"""The embedded engine's HTTP path: a stream that falls silent while the server lives is cut (no model is needed)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.unit.endpoint_box import HELLO, hang, ignore, lost, started

from mains.engines.catalogue import EngineSpec
from mains.engines.llama import LlamaEngine
from mains.errors import EngineError
from mains.settings import Settings


class Living:
    """A child that lives, at a URL; what the engine needs of `LlamaServer`."""

    health = "ok"

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        self.calls = 0

    async def ready(self) -> Living:
        return self

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        self.calls += 1
        yield

    def heard(self) -> None:
        """Bytes came."""

    async def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as opened:
        yield opened


async def failed(
    stack: contextlib.AsyncExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[object]
) -> EngineError:
    """The error of a call to a server that says `said` and then nothing more."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in said:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        return await hang(request)

    url = await started(stack, handler, "/chat/completions")
    settings = Settings(stream_idle_s=0.002, first_byte_s=0.02)
    spec = EngineSpec(name="llama", kind="llama", model="m", slots=2, context_tokens=1_000)
    engine = LlamaEngine(spec, tmp_path / "log", settings, health_timeout_s=0.001)
    stack.push_async_callback(engine.close)
    monkeypatch.setattr(engine, "_server", Living(url.removesuffix("/v1")))
    with pytest.raises(EngineError) as caught:
        await engine.complete(HELLO, ignore)
    assert engine.state().busy == 0
    return caught.value


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ([], "0.02 s"),
        ([{"choices": [{"delta": {"role": "assistant", "content": None}}]}], "0.02 s"),
        ([{"choices": [{"delta": {"content": "half"}}]}], "0.005 s"),  # twice stream_idle_s, and the health check
    ],
    ids=["nothing", "no output yet", "half an answer"],
)
async def test_a_stream_that_falls_silent_is_cut(
    stack: contextlib.AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    said: list[object],
    limit: str,
) -> None:
    error = await failed(stack, monkeypatch, tmp_path, said)
    assert lost(error)
    assert f"the stream sent nothing for {limit}, though the server lives" in str(error)
