"""Vectors from an endpoint: a real server, what it is sent, and every way in which it can fail."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tests.unit.endpoint_box import KEY, Handler, answer, hang, started

from mains.engines.catalogue import EngineSpec
from mains.engines.embeddings import BATCH_TEXTS, EndpointEmbedder
from mains.errors import EngineError, Spent


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def embedder_at(stack: contextlib.AsyncExitStack, handler: Handler, **options: Any) -> EndpointEmbedder:
    url = await started(stack, handler, "/embeddings")
    embedder = made(url, **options)
    stack.push_async_callback(embedder.close)
    return embedder


def made(url: str, *, key_env: str = "TEST_KEY", **options: Any) -> EndpointEmbedder:
    spec = EngineSpec(name="e1", kind="openai", url=url, key_env=key_env)
    return EndpointEmbedder(spec, "small", environ={"TEST_KEY": KEY}, now=lambda: 0.0, **options)


async def test_each_text_has_its_vector(stack: contextlib.AsyncExitStack) -> None:
    seen: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append(body)
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        data = [{"index": at, "embedding": [float(len(text)), 1.0]} for at, text in enumerate(body["input"])]
        return web.json_response({"data": data[::-1], "usage": {"total_tokens": 3}})

    embedder = await embedder_at(stack, handler)
    texts = ["x" * n for n in range(1, BATCH_TEXTS + 3)] + ["\ud800"]
    assert await embedder.embed(texts) == [[float(len(text)), 1.0] for text in texts]
    assert [len(body["input"]) for body in seen] == [BATCH_TEXTS, 3]
    assert seen[0]["model"] == "small"
    assert embedder.name == "e1/small"
    assert await embedder.embed([]) == []


@pytest.mark.parametrize(
    ("handler", "retryable", "spent"),
    [
        (answer(401, {"error": {"message": f"wrong key {KEY}"}}), False, Spent.NOTHING),
        (answer(429), True, Spent.NOTHING),
        (answer(500), True, Spent.UNKNOWN),
        (answer(307, Location="http://127.0.0.1:9/"), False, Spent.NOTHING),
        (answer(200, "no json"), True, Spent.UNKNOWN),
        (answer(200, {"data": []}), True, Spent.UNKNOWN),
        (answer(200, {"data": [{"index": 0, "embedding": []}]}), True, Spent.UNKNOWN),
        (answer(200, {"data": [{"index": 1, "embedding": [1]}]}), True, Spent.UNKNOWN),
        (hang, True, Spent.UNKNOWN),
    ],
)
async def test_a_failure_says_what_it_means(
    stack: contextlib.AsyncExitStack, handler: Handler, retryable: bool, spent: Spent
) -> None:
    embedder = await embedder_at(stack, handler, timeout_s=0.2)
    with pytest.raises(EngineError) as caught:
        await embedder.embed(["a text"])
    assert (caught.value.retryable, caught.value.spent) == (retryable, spent)
    assert KEY not in str(caught.value) + caught.value.hint


async def test_without_a_server_or_a_key(stack: contextlib.AsyncExitStack) -> None:
    for embedder, retryable in ((made("http://127.0.0.1:9/v1"), True), (made("http://x.invalid", key_env="NO"), False)):
        stack.push_async_callback(embedder.close)
        with pytest.raises(EngineError) as caught:
            await embedder.embed(["a text"])
        assert (caught.value.retryable, caught.value.spent) == (retryable, Spent.NOTHING)
