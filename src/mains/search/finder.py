"""What the index does in its thread: keep the file up to the source, search, forget.

Work is a generator of steps: each takes some milliseconds and leaves nothing open, so that whoever else waits gets his
turn in between. Between two steps anything may have happened to a space, so a step trusts nothing it learnt before.

What a space has behind its indexed part (its *rest*) is scanned when it is little, and indexed when it is not. Before
that, the last indexed document is compared with the source: in a home that was restored from a backup, another process
may have this number now. What has come to be another space is indexed anew.

When the file cannot be written, what is not indexed is scanned up to SCAN_ALL_CHARS_MAX; `fault` says why.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mains.errors import DeviceError
from mains.search.ranking import Part, Ranking, ranked
from mains.search.scoring import is_worded, wording
from mains.search.source import Doc, Hit, Source
from mains.search.store import DamagedError, Place, Space, Store, StoreError, erase
from mains.search.terms import Query, query_of
from mains.search.vectors import fused, nearest, unpacked

SCAN_DOCS_MAX = 16  # a rest of fewer documents is scanned, not indexed
SCAN_CHARS_MAX = 64 * 1024
SCAN_ALL_CHARS_MAX = 2 * 1024 * 1024  # of what is scanned when the file cannot be written
BATCH_COST = 64 * 1024  # indexed in one step, in characters of English: some 50 ms, if no document is larger
COST_UNSPACED = 4  # a character of Chinese makes more terms
BATCH_DOCS_MAX = 64
SCAN_DOCS_MIN = 2
TRIES_MAX = 3  # of one recall, when the file turns out to be damaged
VECTORS_MAX = 64  # chunks whose vectors are compared in one step
CANDIDATES_MAX = 32  # chunks whose text is compared with the query's wording

Reach = Mapping[str, int | None]
"""The spaces of a recall, and for each the position at which it ends (None: all of it is seen)."""


class Answer(NamedTuple):
    """The hits of a recall, and the spaces whose rest was scanned for it."""

    hits: list[Hit]
    scanned: list[str]


class Meant(NamedTuple):
    """What a query means: the vector that `model` makes of it."""

    model: str
    numbers: bytes


class Wanting(NamedTuple):
    """Texts of chunks that have no vector yet, from `ordinal` on."""

    space: Space
    ordinal: int
    texts: list[str]


Near = tuple[str, Place]
"""A chunk that is near in meaning: its space and where it comes from."""


class _BehindError(Exception):
    """Much of a space is not indexed any more, or not yet: somebody else forgot it, or made the file anew."""


class Finder:
    """See the module's header. Everything but `fault` belongs to one thread."""

    def __init__(self, path: Path, source: Source, connect: Callable[..., sqlite3.Connection]) -> None:
        self._path = path
        self._source = source
        self._connect = connect
        self._store: Store | None = None
        self.fault = ""

    # ------------------------------------------------------------------------------------------------------- steps

    def recall(self, reach: Reach, text: str, k: int, meant: Meant | None = None) -> Iterator[Answer | None]:
        """Steps that end with the best hits. Raises DeviceError (too much to scan) and what the source raises."""
        query = query_of(text)
        for tries in range(TRIES_MAX):
            try:
                for name, until in reach.items():
                    for _ in self._index(name, until, SCAN_CHARS_MAX):
                        yield None
                near = (yield from self._near(reach, meant)) if meant else []
                yield self._search(reach, query, near, k) if k > 0 else Answer([], [])
                return
            except DamagedError as error:
                self._renew(error, tries)
            except _BehindError as error:
                if tries == TRIES_MAX - 1:
                    raise self._too_long() from error

    def index(self, name: str) -> Iterator[None]:
        """Steps that index the whole rest of a space. Raises DeviceError and what the source raises."""
        for tries in range(TRIES_MAX):
            try:
                yield from self._index(name, None, -1)
                return
            except DamagedError as error:
                self._renew(error, tries)

    def _index(self, name: str, until: int | None, little: int) -> Iterator[None]:
        """Index a space (up to `until`) until its rest is a few documents of `little` characters, or none (-1)."""
        most = SCAN_DOCS_MAX
        while (usual := self._add(name, until, most, little)) is not None:
            yield
            most = max(SCAN_DOCS_MIN, min(BATCH_DOCS_MAX, BATCH_COST // max(1, usual)))

    def forget(self, names: Sequence[str]) -> Iterator[bool | None]:
        """Steps that remove spaces and what is left of them in the file; the last is True. Raises StoreError."""
        try:
            for name in names:
                self._opened().forget(name)
                yield None
            self._opened().cut()
        except StoreError:  # damaged, or no room to write: without the file nothing is left of them either
            self.close()
            erase(self._path)
        yield True

    def names(self) -> list[str]:
        """The spaces of which something is in the file; none when there is no file, or it cannot be used."""
        store = self._ready() if self._path.exists() else None
        try:
            return store.names() if store else []
        except StoreError:
            return []

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    # ---------------------------------------------------------------------------------------------------- the file

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store.open(self._path, self._connect)
        return self._store

    def _ready(self) -> Store | None:
        """The file; None when it cannot be used, and `fault` says why."""
        try:
            return self._opened()
        except StoreError as error:
            self.fault = str(error)
            return None

    def _renew(self, error: DamagedError, tries: int) -> None:
        """The file is damaged: remove it, so that it is made anew. Raises DeviceError when that does not help."""
        self.close()
        try:
            if tries == TRIES_MAX - 1:
                raise error
            erase(self._path)
        except StoreError as worse:
            self.fault = str(worse)
            hint = f"remove {self._path}: it is made again"
            raise DeviceError(f"memory cannot be searched: {worse}", hint=hint, retryable=True) from worse

    def _too_long(self) -> DeviceError:
        where = self._path.parent
        return DeviceError(
            f"memory is not indexed, and too long to be read through: {self.fault or 'it is made anew'}",
            hint=f"make room on the disk, and let {where} be written",
            retryable=True,
        )

    # ------------------------------------------------------------------------------------------------- up to date

    def _look(self, store: Store | None, name: str, until: int | None, most: int) -> tuple[Space | None, list[Doc]]:
        """What is indexed of a space, and the first documents of its rest."""
        space = store.space(name) if store else None
        if store is not None and space is not None:
            more = until is None or until > space.next
            docs = self._source.read(name, space.next - 1, most + 1 if more else 1)
            if docs and (docs[0].position, docs[0].page) == (space.next - 1, space.page):
                return space, _within(docs[1:], space.next, until)
            store.forget(name)
        return None, _within(self._source.read(name, 0, most), 0, until)

    def _add(self, name: str, until: int | None, most: int, little: int) -> int | None:
        """Index a batch of a space; what a document of it costs. None: the rest is little, or cannot be indexed."""
        store = self._ready()
        if store is None:
            return None
        try:
            _, docs = self._look(store, name, until, most)
            chars = sum(len(doc.text) for doc in docs)
            if not docs or (len(docs) < most and chars <= little):
                return None
            batch = _batch(docs)
            store.add(name, batch)
        except DamagedError:
            raise
        except StoreError as error:
            self.fault = str(error)
            return None
        self.fault = ""
        return sum(map(_cost, batch)) // len(batch)

    def _parts(self, store: Store | None, reach: Reach) -> Iterator[Part]:
        left = SCAN_ALL_CHARS_MAX
        for name, until in reach.items():
            space, docs = self._look(store, name, until, BATCH_DOCS_MAX)
            rest = docs
            while docs:
                left -= sum(len(doc.text) for doc in docs)
                if left < 0:
                    raise self._too_long() if self.fault else _BehindError
                after = docs[-1].position + 1
                docs = _within(self._source.read(name, after, BATCH_DOCS_MAX), after, until)
                rest = [*rest, *docs]
            seen = 0
            if store is not None and space is not None:
                seen = space.chunks if until is None else store.chunks_before(space, until)
            yield Part(name, space, seen, rest)

    # ------------------------------------------------------------------------------------------------------ search

    def _search(self, reach: Reach, query: Query, near: list[Near], k: int) -> Answer:
        try:
            return self._answer(self._ready(), reach, query, near, k)
        except DamagedError:
            raise
        except StoreError as error:
            self.fault = str(error)
            return self._answer(None, reach, query, near, k)

    def _answer(self, store: Store | None, reach: Reach, query: Query, near: list[Near], k: int) -> Answer:
        parts = list(self._parts(store, reach))
        ranking = ranked(store, parts, query, CANDIDATES_MAX + k)
        docs = {(each.part.name, each.doc.position): each.doc for each in ranking.best if each.doc}
        hits = [
            msgspec.structs.replace(hit, score=each.score + ranking.whole * wording(query, hit.text))
            for each in ranking.best
            if (hit := self._hit(docs, each.part.name, each.place)) is not None
        ]
        hits += self._worded(query, ranking, docs, k)
        hits.sort(key=lambda hit: (-hit.score, -hit.position, hit.first))
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(hit.page, hit)
        if near:
            best = _joined(query, best, [self._hit(docs, name, place) for name, place in near], k)
        return Answer(list(best.values())[:k], [part.name for part in parts if part.rest])

    def _worded(self, query: Query, ranking: Ranking, docs: dict[tuple[str, int], Doc], k: int) -> list[Hit]:
        """Of the chunks that are not among the best, up to `k` that have the query's wording, the best first."""
        hits: list[Hit] = []
        for each in ranking.worded:
            if len(hits) == k:
                break
            hit = self._hit(docs, each.part.name, each.place)
            if hit is not None and is_worded(query, hit.text):
                score = each.score + ranking.whole * wording(query, hit.text)
                hits.append(msgspec.structs.replace(hit, score=score))
        return hits

    def _hit(self, docs: dict[tuple[str, int], Doc], name: str, place: Place) -> Hit | None:
        """A chunk with its text; None: the source does not have its document any more."""
        doc = docs.get((name, place.position)) or self._document(name, place.position)
        if doc is None:
            return None
        docs[name, place.position] = doc
        text = doc.text[place.first : place.until]
        return Hit(name, doc.position, doc.page, 0.0, place.first, place.until, text)

    def _document(self, name: str, position: int) -> Doc | None:
        """The document at a position; None: the source does not have it any more."""
        docs = self._source.read(name, position, 1)
        return docs[0] if docs and docs[0].position == position else None

    # ----------------------------------------------------------------------------------------------------- vectors

    def _near(self, reach: Reach, meant: Meant) -> Generator[None, None, list[Near]]:
        """Steps through the vectors of these spaces; the chunks that are nearest, in their order."""
        query, best = unpacked(meant.numbers), list[tuple[float, int, str, Place]]()
        for name, until in reach.items():
            start = 0
            while rows := self._vectors(name, meant.model, start):
                for _, place, numbers in rows:
                    near = nearest(query, numbers) if until is None or place.position < until else None
                    if near is not None:
                        best.append((near, place.position, name, place))
                best = heapq.nlargest(CANDIDATES_MAX, best)
                start = rows[-1][0] + 1
                yield
        return [(name, place) for *_, name, place in best]

    def _vectors(self, name: str, model: str, start: int) -> list[tuple[int, Place, bytes]]:
        store = self._ready()
        try:
            space = store.space(name) if store else None
            return store.vectors(space, model, start, VECTORS_MAX) if store and space else []
        except DamagedError:
            raise
        except StoreError as error:
            self.fault = str(error)
            return []

    def wanting(self, name: str, model: str, most: int) -> Wanting | None:
        """The next chunks of a space without a vector of this model; None: there are none. Raises StoreError."""
        store = self._ready()
        space = store.space(name) if store else None
        if store is None or space is None or (ordinal := store.vectors_next(space, model)) >= space.chunks:
            return None
        docs: dict[tuple[str, int], Doc] = {}
        places = [store.place(space, at) for at in range(ordinal, min(ordinal + most, space.chunks))]
        hits = [self._hit(docs, name, place) for place in places]
        return Wanting(space, ordinal, [hit.text if hit else "" for hit in hits])

    def keep(self, name: str, wanting: Wanting, model: str, numbers: Sequence[bytes]) -> None:
        """Keep the vectors of such chunks, unless the space was forgotten meanwhile. Raises StoreError."""
        store = self._ready()
        space = store.space(name) if store else None
        if store is not None and space is not None and space.id == wanting.space.id:
            store.keep(space, model, wanting.ordinal, numbers)


def _joined(query: Query, words: dict[str, Hit], near: list[Hit | None], k: int) -> dict[str, Hit]:
    """Both rankings as one. What few have word for word stays in front: who asks for it means it."""
    meant: dict[str, Hit] = {}
    for hit in near:
        if hit is not None:
            meant.setdefault(hit.page, hit)
    scores = fused(list(words), list(meant))
    exact = {page for page, hit in words.items() if is_worded(query, hit.text)}
    if len(exact) > k:  # a word that many have is no wording
        exact = set()
    order = sorted(scores, key=lambda page: (page not in exact, -scores[page]))
    return {page: msgspec.structs.replace(words.get(page) or meant[page], score=scores[page]) for page in order}


def _within(docs: list[Doc], start: int, until: int | None) -> list[Doc]:
    return [doc for doc in docs if doc.position >= start and (until is None or doc.position < until)]


def _batch(docs: list[Doc]) -> list[Doc]:
    """As many of the first documents as make a batch, at least one."""
    cost, count = 0, 0
    for doc in docs:
        cost += _cost(doc)
        if count and cost > BATCH_COST:
            break
        count += 1
    return docs[:count]


def _cost(doc: Doc) -> int:
    return len(doc.text) * (1 if doc.text.isascii() else COST_UNSPACED)
