"""What the index does in its thread: keep the file up to the source, search, forget.

Work is a generator of steps: each takes some milliseconds and leaves nothing open, so that whoever else waits gets his
turn in between. Between two steps anything may have happened to a space, so a step trusts nothing it learnt before.

What a space has behind its indexed part (its *rest*) is scanned when it is little, and indexed when it is not. Before
that, the last indexed document is compared with the source: in a home that was restored from a backup, another process
may have this number now. What has come to be another space is indexed anew.

When the file cannot be written, what is not indexed is scanned up to SCAN_ALL_CHARS_MAX; `fault` says why.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mains.errors import DeviceError
from mains.search.ranking import Part, ranked
from mains.search.scoring import wording
from mains.search.source import Doc, Hit, Source
from mains.search.store import DamagedError, Space, Store, StoreError, erase
from mains.search.terms import Query, query_of

SCAN_DOCS_MAX = 16  # a rest of fewer documents is scanned, not indexed
SCAN_CHARS_MAX = 64 * 1024
SCAN_ALL_CHARS_MAX = 2 * 1024 * 1024  # of what is scanned when the file cannot be written
BATCH_CHARS = 128 * 1024  # indexed in one step, if documents are not larger
BATCH_DOCS_MAX = 64
SCAN_DOCS_MIN = 2
TRIES_MAX = 3  # of one recall, when the file turns out to be damaged
CANDIDATES_MAX = 32  # chunks whose text is compared with the query's wording

Reach = Mapping[str, int | None]
"""The spaces of a recall, and for each the position at which it ends (None: all of it is seen)."""


class Answer(NamedTuple):
    """The hits of a recall, and the spaces whose rest was scanned for it."""

    hits: list[Hit]
    scanned: list[str]


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

    def recall(self, reach: Reach, text: str, k: int) -> Iterator[Answer | None]:
        """Steps that end with the best hits. Raises DeviceError (too much to scan) and what the source raises."""
        query = query_of(text)
        for tries in range(TRIES_MAX):
            try:
                for name, until in reach.items():
                    for _ in self._index(name, until, SCAN_CHARS_MAX):
                        yield None
                yield self._search(reach, query, k) if query.terms and k > 0 else Answer([], [])
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
            most = max(SCAN_DOCS_MIN, min(BATCH_DOCS_MAX, BATCH_CHARS // max(1, usual)))

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
        """Index a batch of a space; how long a document is in it. None: the rest is little, or cannot be indexed."""
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
        return sum(len(doc.text) for doc in batch) // len(batch)

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

    def _search(self, reach: Reach, query: Query, k: int) -> Answer:
        try:
            return self._hits(self._ready(), reach, query, k)
        except DamagedError:
            raise
        except StoreError as error:
            self.fault = str(error)
            return self._hits(None, reach, query, k)

    def _hits(self, store: Store | None, reach: Reach, query: Query, k: int) -> Answer:
        parts = list(self._parts(store, reach))
        found, whole = ranked(store, parts, query, CANDIDATES_MAX + k)
        hits: list[Hit] = []
        docs: dict[tuple[str, int], Doc | None] = {}
        for each in found:
            where = (each.part.name, each.place.position)
            if where not in docs:
                docs[where] = each.doc or self._document(*where)
            doc = docs[where]
            if doc is None:
                continue
            text = doc.text[each.place.first : each.place.until]
            score = each.score + whole * wording(query, text)
            hits.append(Hit(where[0], doc.position, doc.page, score, each.place.first, each.place.until, text))
        hits.sort(key=lambda hit: (-hit.score, -hit.position, hit.first))
        best: dict[str, Hit] = {}
        for hit in hits:
            best.setdefault(hit.page, hit)
        return Answer(list(best.values())[:k], [part.name for part in parts if part.rest])

    def _document(self, name: str, position: int) -> Doc | None:
        """The document at a position; None: the source does not have it any more."""
        docs = self._source.read(name, position, 1)
        return docs[0] if docs and docs[0].position == position else None


def _within(docs: list[Doc], start: int, until: int | None) -> list[Doc]:
    return [doc for doc in docs if doc.position >= start and (until is None or doc.position < until)]


def _batch(docs: list[Doc]) -> list[Doc]:
    """As many of the first documents as make a batch, at least one."""
    chars, count = 0, 0
    for doc in docs:
        chars += len(doc.text)
        if count and chars > BATCH_CHARS:
            break
        count += 1
    return docs[:count]
