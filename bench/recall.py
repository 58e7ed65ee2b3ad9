"""How long a search in memory takes, in a large home: 500,000 documents in 10,000 spaces, one of which has 5,000.

Documents are made: words drawn by Zipf's law from a vocabulary, and in each a name that no other has. All are indexed;
then the space of 5,000 is searched for the wording of a document (8 words), for a question (20 words of one, in any
order) and for the 6 rarest words of one, and each answer should have that document in its first five. The documents of
that space are in memory, so the source costs nothing; the others are made when they are read (the time to index
includes that, for both).

The rival is SQLite's FTS5 with the space as a term and `bm25()`, over the same documents in the same run.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench import machine
from bench.child import in_child
from bench.report import Figure, Report, below
from mains.search.index import Index
from mains.search.source import Doc

GOAL_MS = 20.0
LARGE = "p0"
_WORDS = 60
_VOCABULARY = 50_000


class Size(msgspec.Struct, frozen=True):
    """Spaces of how many documents each; documents of the large space; searches of each kind."""

    spaces: int
    each: int
    large: int
    searches: int


FULL = Size(9_999, 49, 5_000, 400)
QUICK = Size(20, 10, 300, 10)


def spelled(rank: int) -> str:
    """A word for a number: syllables, the frequent ones short."""
    word = ""
    while rank >= 0:
        rank, at = divmod(rank, 100)
        word += "bcdfghklmnprstvwxyzj"[at // 5] + "aeiou"[at % 5]
        rank -= 1
    return word


class Kind(msgspec.Struct, frozen=True):
    """Times of one kind of search in milliseconds, and how many found what they looked for in the first five."""

    name: str
    p50_ms: float
    p99_ms: float
    found: float


class Measured(msgspec.Struct, frozen=True):
    """What one way of searching gave."""

    index_s: float
    file_bytes: int
    rss_bytes: int
    kinds: list[Kind]


class Made:
    """A source whose documents are made when they are read."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(_VOCABULARY)))
        self._words = [spelled(rank) for rank in range(_VOCABULARY)]
        self.rank = {word: rank for rank, word in enumerate(self._words)}
        self._large = [self._doc(LARGE, at) for at in range(size.large)]

    def words(self, space: str, position: int) -> list[str]:
        """The words of a document."""
        chance = random.Random(f"{space}/{position}")
        return [*chance.choices(self._words, cum_weights=self._weights, k=_WORDS), f"name{space}at{position}"]

    def count(self, space: str) -> int:
        """How many documents a space has."""
        return self.size.large if space == LARGE else self.size.each

    def read(self, space: str, start: int, most: int) -> list[Doc]:
        """As the kernel's own source."""
        if space == LARGE:
            return self._large[start : start + most]
        return [self._doc(space, at) for at in range(start, min(start + most, self.count(space)))]

    def _doc(self, space: str, at: int) -> Doc:
        text = " ".join(self.words(space, at))
        return Doc(at, hashlib.sha256(text.encode()).hexdigest(), text)

    def spaces(self) -> list[str]:
        """All of them."""
        return [f"p{number}" for number in range(self.size.spaces + 1)]

    def questions(self) -> dict[str, list[tuple[str, int]]]:
        """Of each kind the queries, each with the position of the document that it looks for."""
        chance = random.Random(1)
        kinds: dict[str, list[tuple[str, int]]] = {"8 words": [], "20 words": [], "rare words": []}
        for _ in range(self.size.searches):
            at = chance.randrange(self.size.large)
            words = self.words(LARGE, at)[:-1]
            first = chance.randrange(len(words) - 8)
            kinds["8 words"].append((" ".join(words[first : first + 8]), at))
            kinds["20 words"].append((" ".join(chance.sample(words, 20)), at))
            kinds["rare words"].append((" ".join(sorted(words, key=lambda word: -self.rank[word])[:6]), at))
        return kinds


def _kind(name: str, spans: list[float], found: int) -> Kind:
    spans = sorted(spans)
    return Kind(name, statistics.median(spans), spans[int(len(spans) * 0.99)], found / len(spans))


def ours(folder: str, size: Size | dict[str, int]) -> Measured:
    """Index and search with Mains."""
    return asyncio.run(_ours(Path(folder) / "memory.db", Made(msgspec.convert(size, Size))))


async def _ours(path: Path, made: Made) -> Measured:
    index = Index(path, made, wait_s=600)
    started = time.perf_counter()
    for space in made.spaces():  # nothing is found, but all is indexed
        await index.recall([(space, None)], "nowhere", 1)
    index_s = time.perf_counter() - started
    kinds: list[Kind] = []
    for name, queries in made.questions().items():
        spans, found = [], 0
        for query, at in queries:
            started = time.perf_counter()
            hits = await index.recall([(LARGE, None)], query, 5)
            spans.append((time.perf_counter() - started) * 1_000)
            found += any(hit.position == at for hit in hits)
        kinds.append(_kind(name, spans, found))
    rss_bytes = machine.rss_bytes()
    await index.close()
    return Measured(index_s, path.stat().st_size, rss_bytes, kinds)


def rival(folder: str, size: Size | dict[str, int]) -> Measured:
    """Index and search with FTS5."""
    made, path = Made(msgspec.convert(size, Size)), Path(folder) / "fts.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE VIRTUAL TABLE doc USING fts5(space, body, content='')")
    positions: list[int] = []
    started = time.perf_counter()
    for space in made.spaces():
        connection.execute("BEGIN")
        for at in range(made.count(space)):
            row = (len(positions), space, " ".join(made.words(space, at)))
            connection.execute("INSERT INTO doc(rowid, space, body) VALUES (?, ?, ?)", row)
            positions.append(at)
        connection.execute("COMMIT")
    index_s = time.perf_counter() - started
    kinds = [_kind(name, *_asked(connection, positions, queries)) for name, queries in made.questions().items()]
    rss_bytes = machine.rss_bytes()
    connection.close()
    return Measured(index_s, path.stat().st_size, rss_bytes, kinds)


def _asked(
    connection: sqlite3.Connection, positions: list[int], queries: list[tuple[str, int]]
) -> tuple[list[float], int]:
    spans, found = [], 0
    for query, at in queries:
        terms = " OR ".join(f'"{word}"' for word in set(query.split()))
        asked = f'space:"{LARGE}" AND body:({terms})'
        started = time.perf_counter()
        rows = connection.execute(
            "SELECT rowid FROM doc WHERE doc MATCH ? ORDER BY bm25(doc, 0.0, 1.0) LIMIT 5", (asked,)
        ).fetchall()
        spans.append((time.perf_counter() - started) * 1_000)
        found += any(positions[row] == at for (row,) in rows)
    return spans, found


def _figures(name: str, measured: Measured, docs: int, judged: bool) -> list[Figure]:
    figures: list[Figure] = []
    for kind in measured.kinds:
        p99 = f"{name}, {kind.name}: p99"
        figures += [
            Figure(f"{name}, {kind.name}: p50", kind.p50_ms, "ms"),
            below(p99, kind.p99_ms, "ms", GOAL_MS) if judged else Figure(p99, kind.p99_ms, "ms"),
            Figure(f"{name}, {kind.name}: found in 5", 100 * kind.found, "%"),
        ]
    return [
        *figures,
        Figure(f"{name}: indexed", docs / measured.index_s, "documents/s"),
        Figure(f"{name}: file", measured.file_bytes / 1e6, "MB"),
        Figure(f"{name}: memory", measured.rss_bytes / 1e6, "MB"),
    ]


def main(quick: bool) -> Report:
    """Both ways, each in a child of its own."""
    size = QUICK if quick else FULL
    docs = size.spaces * size.each + size.large
    ways: list[tuple[str, Callable[..., Measured]]] = [("Mains", ours), ("FTS5", rival)]
    figures: list[Figure] = []
    for name, way in ways:
        with machine.scratch() as folder:
            measured = msgspec.convert(in_child(way, str(folder), size), Measured)
        figures += _figures(name, measured, docs, judged=name == "Mains")
    note = f"{docs:,} documents of {_WORDS} words in {size.spaces + 1:,} spaces; searched in one of {size.large:,}"
    return Report("recall", tuple(figures), (note, f"{size.searches} searches of each kind"))
