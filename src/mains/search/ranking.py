"""The chunks of some spaces in the order of BM25: those that are indexed, and those that are not yet, as one list."""

from __future__ import annotations

import array
import heapq
from bisect import bisect_left
from typing import NamedTuple, TypeAlias

from mains.search.chunks import chunks_of
from mains.search.scoring import IMPACT_BITS, LEVELS, impacts, rarity, weights
from mains.search.source import Doc
from mains.search.store import BLOCK_CHUNKS, DamagedError, Place, Space, Store
from mains.search.terms import Query, terms_of

_LEVEL = LEVELS - 1
ENTRIES_MAX = 200_000  # of postings, read for one query; the rarest terms come first

WORDED_MAX = 256  # chunks beyond the best whose text is looked into, because they have all words of the query

Blocks: TypeAlias = "list[tuple[int, array.array[int]]]"


class Part(NamedTuple):
    """A space as one search sees it: what is indexed, how many chunks of that are seen, and the rest, to be scanned."""

    name: str
    space: Space | None
    seen: int
    rest: list[Doc]


class Found(NamedTuple):
    """A chunk that has terms of the query. `doc`: its document, when it was scanned."""

    score: float
    part: Part
    place: Place
    doc: Doc | None


class _Scanned(NamedTuple):
    part: Part
    doc: Doc
    place: Place
    impacts: dict[str, int]


class _Term(NamedTuple):
    """A term of the query: in how many chunks it is, and where (for each part its blocks)."""

    term: str
    found: int
    blocks: list[Blocks]


class Ranking(NamedTuple):
    """The best chunks, best first; others that may have the query's wording; what all its terms weigh together."""

    best: list[Found]
    worded: list[Found]
    whole: float


def ranked(store: Store | None, parts: list[Part], query: Query, most: int) -> Ranking:
    """The chunks of some spaces by how well they fit. Raises what the store does."""
    for part in parts:
        if store and part.space:
            store.place(part.space, part.space.chunks - 1)  # so many there are: nothing is made for more
    scanned = [each for part in parts for each in _scan(part, query)]
    chunks = sum(part.seen for part in parts) + len(scanned)
    scores = [[0.0] * part.seen for part in parts]
    fresh = [0.0] * len(scanned)
    whole, entries = 0.0, 0
    terms = sorted((_term(store, parts, scanned, term) for term in query.terms), key=lambda term: term.found)
    for term in terms:
        if not term.found:
            continue
        whole += rarity(term.found, chunks)
        entries += term.found
        if entries > ENTRIES_MAX and entries > term.found:
            break
        weight = weights(term.found, chunks)
        for blocks, into in zip(term.blocks, scores, strict=True):
            _score(blocks, weight, into)
        for at, each in enumerate(scanned):
            fresh[at] += weight[each.impacts.get(term.term, 0)]
    line = {term for pair in query.pairs for term in pair}
    best, worded = _of_scanned(scanned, fresh, line)
    with_all = _with_all([term for term in terms if term.term in line], parts, most)
    for part, of, every in zip(parts, scores, with_all, strict=True):
        if store is not None and part.space is not None:
            chosen = heapq.nlargest(most, range(part.seen - 1, -1, -1), key=of.__getitem__)
            others = heapq.nlargest(WORDED_MAX, every.difference(chosen), key=of.__getitem__)
            best += [Found(of[at], part, store.place(part.space, at), None) for at in chosen if of[at] > 0]
            worded += [Found(of[at], part, store.place(part.space, at), None) for at in others]
    best = _in_order(best)
    more = _in_order([*best[most:], *worded]) if line else []
    return Ranking(best[:most], more[:WORDED_MAX], whole)


def _of_scanned(scanned: list[_Scanned], scores: list[float], line: set[str]) -> tuple[list[Found], list[Found]]:
    """Scanned chunks with terms of the query, and those with all of its line."""
    found = [
        (Found(score, each.part, each.place, each.doc), line <= each.impacts.keys())
        for score, each in zip(scores, scanned, strict=True)
        if score
    ]
    return [each for each, _ in found], [each for each, every in found if every]


def _in_order(found: list[Found]) -> list[Found]:
    """Best first; of equals, the later."""
    return sorted(found, key=lambda each: (-each.score, -each.place.position))


def _with_all(terms: list[_Term], parts: list[Part], few: int) -> list[set[int]]:
    """For each part the chunks that have all these terms; when they are `few`, perhaps some that have not all."""
    every: list[set[int]] = []
    for number in range(len(parts)):
        left: set[int] | None = None
        for term in terms:  # the rarest first
            here = {offset + (entry >> IMPACT_BITS) for offset, entries in term.blocks[number] for entry in entries}
            left = here if left is None else left & here
            if len(left) <= few:
                break
        every.append(left or set())
    return every


def _scan(part: Part, query: Query) -> list[_Scanned]:
    """The chunks of the rest of a space, with the query's terms in them."""
    return [
        _Scanned(part, doc, Place(doc.position, first, until), _asked(doc.text[first:until], query))
        for doc in part.rest
        for first, until in chunks_of(doc.text)
    ]


def _asked(text: str, query: Query) -> dict[str, int]:
    found = impacts(terms_of(text))
    return {term: found[term] for term in query.terms & found.keys()}


def _term(store: Store | None, parts: list[Part], scanned: list[_Scanned], term: str) -> _Term:
    blocks = [_seen(store.postings(part.space, term), part.seen) if store and part.space else [] for part in parts]
    indexed = sum(len(entries) for each in blocks for _, entries in each)
    return _Term(term, indexed + sum(term in each.impacts for each in scanned), blocks)


def _seen(blocks: Blocks, seen: int) -> Blocks:
    """The entries of the first `seen` chunks (entries are in order)."""
    whole = [(offset, entries) for offset, entries in blocks if 0 <= offset <= seen - BLOCK_CHUNKS]
    for offset, entries in blocks:
        if 0 <= offset < seen < offset + BLOCK_CHUNKS:
            whole.append((offset, entries[: bisect_left(entries, (seen - offset) * LEVELS)]))
    return whole


def _score(blocks: Blocks, weight: list[float], into: list[float]) -> None:
    """Add what a term weighs in each chunk. The hot loop of every search: some 60 ns an entry."""
    try:
        for offset, entries in blocks:
            for entry in entries:
                into[offset + (entry >> IMPACT_BITS)] += weight[entry & _LEVEL]
    except IndexError:
        raise DamagedError("a posting of a chunk that is not there") from None
