"""Large homes for `bench memory`, made fast: through the kernel's own operations, many processes in a commit.

Each process is a conversation that rests. Its context joined in one event, so no engine was asked; the audit accepts it
like any other. Of the pages of a process four in five are drawn from a pool that all share: the program, and what many
of them were told alike. The large process has a summary in place of all but its last pages, as one of its length would.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.recall import spelled
from mains.kernel import mailbox, pages, paging
from mains.kernel.birth import Birth, bear
from mains.kernel.context import tokens_of
from mains.kernel.desk import Desk
from mains.kernel.event import Joined, Rested
from mains.kernel.ports import Message
from mains.kernel.process import Process, Stretch
from mains.kernel.tx import Tx
from mains.kernel.world import World
from mains.program import load_tree

POOL = 400  # pages that all share
WORDS = 60
FRAME_PAGES = 50  # of the large process, that stand in its frame
_VOCABULARY = 50_000
_BATCH = 100  # processes of a commit
_ROLES = ("user", "assistant")
_PROSE = "---\nname: keeper\ndescription: keeps what it is told\n---\nKeep what you are told.\n"


class Home(msgspec.Struct, frozen=True):
    """Processes of how many pages each, and the pages of a large one."""

    processes: int
    each: int
    large: int

    @property
    def pages(self) -> int:
        """All entries of contexts."""
        return self.processes * self.each + self.large


class Texts:
    """Texts that are made of a seed and a name, and in each a name that no other has."""

    def __init__(self) -> None:
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(_VOCABULARY)))
        self._words = [spelled(rank) for rank in range(_VOCABULARY)]

    def words(self, name: str) -> list[str]:
        """The words of one text."""
        return [*random.Random(name).choices(self._words, cum_weights=self._weights, k=WORDS), name]

    def message(self, name: str, at: int) -> Message:
        """A page."""
        return Message(role=_ROLES[at % 2], text=" ".join(self.words(name)))  # type: ignore[arg-type]


class Maker:
    """Makes processes of a home."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self._commit = desk.journal.commit
        self._world: World = desk._kernel.world
        self.texts = Texts()
        path = folder / "keeper.md"
        path.write_text(_PROSE)
        tree = load_tree(path, self._world.settings)
        self._birth = Birth(
            program=tree.program, programs={}, inputs=(), route=self._world.route(()), path=str(path), conversation=True
        )
        self._pool: list[tuple[str, int]] = []

    async def fill(self, home: Home) -> int:
        """All processes of a home; the pid of the large one."""
        await self._commit(self._fill_pool, "pool")
        for first in range(0, home.processes, _BATCH):
            count = min(_BATCH, home.processes - first)
            await self._commit(lambda tx, first=first, count=count: self._some(tx, first, count, home.each), "fill")
        return await self.large(home.large)

    async def large(self, count: int) -> int:
        """A process of so many pages of its own."""

        def op(tx: Tx) -> int:
            told = [self._put(tx, f"large{at}", at) for at in range(count - 2)]  # and its opening and a message
            p = self._told(tx, told)
            if count > 2 * FRAME_PAGES:
                p = paging.extracted(tx, self._world, p, Stretch(0, count - FRAME_PAGES, ()))
            return tx.happen(p, Rested()).pid

        return await self._commit(op, "large")

    def _fill_pool(self, tx: Tx) -> None:
        self._pool = [self._put(tx, f"pool{at}", at) for at in range(POOL)]
        tx.happen(self._told(tx, self._pool), Rested())  # an event has to name each

    def _put(self, tx: Tx, name: str, at: int) -> tuple[str, int]:
        message = self.texts.message(name, at)
        return pages.put_message(tx, message), tokens_of(message)

    def _some(self, tx: Tx, first: int, count: int, each: int) -> None:
        own = max(1, each // 5)
        for number in range(first, first + count):
            chance = random.Random(number)
            told = chance.sample(self._pool, each - own - 2)  # and its opening and a message
            for at in range(own):
                told.insert(chance.randrange(len(told) + 1), self._put(tx, f"own{number}at{at}", at))
            tx.happen(self._told(tx, told), Rested())

    def _told(self, tx: Tx, told: Sequence[tuple[str, int]]) -> Process:
        """A conversation that was told these pages, and is about to answer."""
        p = bear(tx, self._world, self._birth, None)
        _, p = mailbox.put(tx, p, "a person", "Keep this.", "", self._world.settings)
        mail = mailbox.unread(tx, p, 1)
        first = [(each.page, 20) for each in mail]
        joined = [*first, *told]
        names = tuple(page for page, _ in joined)
        pages.extend(tx, p, names)
        tokens = sum(size for _, size in joined)
        return tx.happen(p, Joined(pages=names, tokens=tokens, messages=mailbox.consume(tx, mail)))


def questions(texts: Texts, large: int, count: int) -> list[tuple[str, str]]:
    """Queries for pages that left the large process's frame: 8 words as they stand, and the page's own name."""
    chance = random.Random(1)
    asked: list[tuple[str, str]] = []
    for at in chance.sample(range(large - 2 * FRAME_PAGES), min(count, large - 2 * FRAME_PAGES)):
        words = texts.words(f"large{at}")
        first = chance.randrange(WORDS - 8)
        asked.append((" ".join(words[first : first + 8]), words[-1]))
    return asked


def answered(told: str, name: str) -> bool:
    """Whether a page is among those that `recall` told."""
    return name in told.split()


def sizes(database: Path) -> dict[str, Any]:
    """Bytes of a database and of what stands beside it."""
    return {path.name: path.stat().st_size for path in database.parent.glob(f"{database.name}*")}
