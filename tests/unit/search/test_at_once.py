"""Many at once: spaces grow, are searched, touched, damaged and forgotten in any order, and the index stays right."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.search.shelf import Shelf, index_over, indexed

from mains.search.index import Index

SPACES = [f"p{number}" for number in range(6)]


class Letters:
    """An embedder that counts letters."""

    name = "letters"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return [[float(text.count(letter)) for letter in "aeiou7"] for text in texts]


class Life:
    """What one seed does to an index."""

    def __init__(self, seed: int, shelf: Shelf, index: Index) -> None:
        self.chance = random.Random(seed)
        self.shelf = shelf
        self.index = index
        self.named = 0
        self.gone: list[str] = []

    def _grow(self, space: str) -> None:
        for _ in range(self.chance.choice((1, 5, 80))):
            self.named += 1
            self.shelf.put(space, f"canary{self.named}q of {space} " + "and more of it " * self.chance.randrange(20))

    async def _find(self, space: str) -> None:
        docs = list(self.shelf.docs.get(space, []))
        if not docs:
            return
        doc = self.chance.choice(docs)
        hits = await self.index.recall([(space, None), ("p0", 3)], doc.text.split()[0], 3)
        if doc in self.shelf.docs.get(space, []):
            assert doc.page in [hit.page for hit in hits]

    async def _forget(self, space: str) -> None:
        self.gone += [doc.text.split()[0] for doc in self.shelf.docs.pop(space, [])]
        await self.index.forget([space])

    async def act(self) -> None:
        """Do one thing."""
        space = self.chance.choice(SPACES)
        what = self.chance.randrange(12)
        if what < 5:
            self._grow(space)
        elif what < 7:
            self.index.touch(space)
        elif what < 11:
            await self._find(space)
        elif space != "p0":
            await self._forget(space)

    async def live(self) -> None:
        """Do many things, one after the other."""
        for _ in range(40):
            await self.act()


@pytest.mark.parametrize("seed", range(5))
async def test_the_index_stays_right(tmp_path: Path, seed: int) -> None:
    shelf = Shelf(p0=["canaryAq of p0", "canaryBq of p0"])
    async with index_over(shelf, tmp_path / "memory.db", embedder=Letters() if seed % 2 else None) as index:
        life = Life(seed, shelf, index)
        await asyncio.gather(*(life.live() for _ in range(4)))
        for space in SPACES:
            index.touch(space)
        await indexed(index)
        assert index.state()[:3] == ("", "", 0)
        for space, docs in shelf.docs.items():
            for doc in life.chance.sample(docs, min(10, len(docs))):
                hits = await index.recall([(space, None)], doc.text.split()[0], 1)
                assert [hit.page for hit in hits] == [doc.page]
        await index.forget([])
        left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert not [name for name in life.gone if name.encode() in left]


async def test_what_is_touched_is_bounded_and_what_is_not_remembered_is_found(tmp_path: Path) -> None:
    spaces = {f"p{number}": [f"w{number}"] * 30 for number in range(9)}
    async with index_over(Shelf(**spaces), tmp_path / "memory.db", touched_max=4) as index:
        for space in spaces:
            index.touch(space)
        assert index.state().touched == 4
        await indexed(index)
        for number in range(9):
            assert await index.recall([(f"p{number}", None)], f"w{number}", 1)
