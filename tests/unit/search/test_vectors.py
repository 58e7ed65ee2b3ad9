"""Search by meaning beside search by words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.search.shelf import Shelf, index_over, indexed

from mains.errors import EngineError, Spent
from mains.search.vectors import fused, packed, product, unpacked

ALIKE = [{"car", "automobile", "bicycle"}, {"friday", "deadline", "date"}, {"apple", "fruit", "pear"}]
TEXTS = ["Ann sold her automobile", "a pear for lunch", "nothing of note", *(f"page {n} says hm" for n in range(30))]


class Topics:
    """An embedder that knows three topics. `fails` with an error, `hangs`, or answers."""

    def __init__(self, name: str = "topics") -> None:
        self.name = name
        self.asked: list[str] = []
        self.fails = self.hangs = self.short = False

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.asked += texts
        if self.fails:
            raise EngineError("engine e1: no connection", retryable=True, spent=Spent.NOTHING)
        if self.hangs:
            await asyncio.Event().wait()
        return [[float(len(words & set(text.lower().split()))) + 0.01 for words in ALIKE] for text in texts][
            self.short :
        ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


async def first(index: object, query: str, until: int | None = None) -> list[str]:
    return [hit.text for hit in await index.recall([("p1", until)], query, 3)]  # type: ignore[attr-defined]


async def test_what_is_alike_in_meaning_is_found(path: Path) -> None:
    async with index_over(Shelf(p1=TEXTS), path, embedder=Topics()) as index:
        index.touch("p1")
        await indexed(index)
        assert (await first(index, "her car"))[0] == TEXTS[0]
        assert (await first(index, "fruit"))[0] == TEXTS[1]
        assert TEXTS[1] not in await first(index, "fruit", until=1)
        assert (await first(index, "nothing of note"))[0] == TEXTS[2]
    async with index_over(Shelf(p1=TEXTS), path) as index:
        assert await first(index, "fruit") == []


async def test_vectors_are_made_once_and_again_for_another_model(path: Path) -> None:
    shelf, topics = Shelf(p1=TEXTS), Topics()
    async with index_over(shelf, path, embedder=topics) as index:
        index.touch("p1")
        await indexed(index)
        assert sorted(topics.asked) == sorted(TEXTS)
        shelf.put("p1", "a new page")
        index.touch("p1")
        await indexed(index)
        assert topics.asked[len(TEXTS) :] == ["a new page"]
    async with index_over(shelf, path, embedder=(other := Topics("other"))) as index:
        assert await first(index, "fruit") == []
        index.touch("p1")
        await indexed(index)
        assert len(other.asked) == 1 + len(TEXTS) + 1
        assert (await first(index, "fruit"))[0] == TEXTS[1]


@pytest.mark.parametrize("how", ["fails", "hangs", "short"])
async def test_when_the_embedder_fails_words_answer(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mains.search.meaning.QUERY_S", 0.05)
    monkeypatch.setattr("mains.search.meaning.BATCH_S", 0.05)
    topics = Topics()
    setattr(topics, how, True)
    async with index_over(Shelf(p1=TEXTS), path, embedder=topics) as index:
        assert (await first(index, "pear"))[0] == TEXTS[1]
        assert "words alone" in index.state().vectors
        asked = len(topics.asked)
        await first(index, "pear")
        await indexed(index)
        assert len(topics.asked) == asked, "asked again before its time"


async def test_vectors_of_a_forgotten_space_are_not_kept(path: Path) -> None:
    shelf, topics = Shelf(p1=TEXTS), Topics()
    async with index_over(shelf, path, embedder=topics) as index:
        index.touch("p1")
        await indexed(index)
        numbers = packed((await topics.embed([TEXTS[1]]))[0])
        assert numbers in path.read_bytes() + path.with_name("memory.db-wal").read_bytes()
        del shelf.docs["p1"]
        await index.forget(["p1"])
        assert numbers not in b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert await first(index, "fruit") == []


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_a_vector_is_kept_at_length_one(numbers: list[float]) -> None:
    kept = unpacked(packed(numbers))
    assert product(kept, kept) == pytest.approx(1 if any(numbers) else 0, abs=1e-5)


def test_what_has_no_direction_is_no_vector() -> None:
    assert packed([0.0, 0.0]) == packed([float("nan"), 1.0]) == packed([1.0, float("nan")]) == b""
    assert packed([float("inf"), 1.0]) == packed([]) == b""


def test_places_are_added_not_scores() -> None:
    scores = fused(["a", "b", "c"], ["b", "d"], [])
    assert sorted(scores, key=lambda thing: -scores[thing]) == ["b", "a", "d", "c"]
    assert scores["b"] == 1 / 62 + 1 / 61
    assert fused(["a", "a", "b"])["b"] == 1 / 62
