"""Vectors of a home's memory: configured in mains.toml, held and settled like any call."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.unit.endpoint_box import started
from tests.unit.kernel.world import says, turn_of

import mains
from mains.errors import ConfigError
from mains.kernel import reckon
from mains.kernel.billing import Budget
from mains.testing import ScriptedEngine

ANIMALS = ("dog", "puppy", "hound")


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def vectors(request: web.Request) -> web.Response:
    """Alike is what tells of animals."""
    texts = (await request.json())["input"]
    data = [
        {"index": at, "embedding": [1.0, 0.1] if any(animal in text for animal in ANIMALS) else [0.1, 1.0]}
        for at, text in enumerate(texts)
    ]
    return web.json_response({"data": data, "usage": {"total_tokens": 7 * len(texts)}})


def write_home(folder: Path, url: str, model: str = "vectors/small") -> Path:
    home = folder / "home"
    home.mkdir()
    (home / "mains.toml").write_text(
        f'[engines.vectors]\nkind = "openai"\nurl = "{url}"\nmodel = "small"\n\n[memory]\nembedder = "{model}"\n'
    )
    return home


async def test_memory_is_found_by_meaning_and_its_vectors_are_metered(
    stack: contextlib.AsyncExitStack, tmp_path: Path
) -> None:
    home = write_home(tmp_path, await started(stack, vectors, "/embeddings"))
    program = tmp_path / "p.md"
    program.write_text("---\nname: p\ndescription: d\ntools: [recall]\n---\nTalk.\n")
    replies = [
        says("the tax is due in May"),
        says("Rex is a hound"),
        says("rain"),
    ]
    engine = ScriptedEngine.of(lambda request: replies[min(turn_of(request), 2)])
    async with mains.open(home, engines=[engine]) as kernel:
        pid = await kernel.spawn(program, conversation=True)
        for turns in (1, 2, 3):
            await kernel.send(pid, "go on")
            while (outcome := await kernel.outcome(pid)).turns < turns or outcome.state != "WAITING":
                await kernel.history(pid)
        search = kernel._kernel.search
        assert search is not None
        while not (found := await search.recall([(f"p{pid}", None)], "puppy", 1)):
            await kernel.history(pid)  # what is not indexed yet has no vector: it is, when there is leisure
        assert [hit.text for hit in found] == ["Rex is a hound"]
        rows = {row.model: row for row in await kernel.meter(by="model")}
        assert rows["small"].input_tokens >= 14 and rows["small"].input_tokens % 7 == 0
        assert not reckon.verify(kernel.journal)


async def test_without_room_words_answer_alone(stack: contextlib.AsyncExitStack, tmp_path: Path) -> None:
    home = write_home(tmp_path, await started(stack, vectors, "/embeddings"))
    async with mains.open(home, engines=[ScriptedEngine.of(lambda _: says("x"))]) as kernel:
        await kernel.budget_set("home", [Budget(unit="tokens", window="total", most=1)])
        search = kernel._kernel.search
        assert search is not None
        assert await search.recall([("p1", None)], "puppy", 3) == []
        assert "no vectors" in search.state().vectors  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", ["nobody/x", "llama/x"])
async def test_what_makes_no_vectors_is_refused(tmp_path: Path, model: str) -> None:
    home = write_home(tmp_path, "http://127.0.0.1:9", model)
    with pytest.raises(ConfigError, match="is no engine that makes vectors"):
        async with mains.open(home):
            pass
