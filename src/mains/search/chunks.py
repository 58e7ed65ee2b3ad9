"""A long text as chunks that overlap, so that a hit shows where in it the words stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator

CHUNK_CHARS_MAX = 2_000
OVERLAP_CHARS = 200  # the end of a chunk is the beginning of the next: a sentence of this length is whole in one
_BREAKS = ("\n\n", "\n", ". ", "。", " ")  # where a chunk ends best
_LOOK_CHARS = 400  # how far before its longest end a chunk may end


def chunks_of(text: str) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) character of each chunk, in order; together they are the whole text.

    A text without characters has one chunk, so that each document has its place.
    """
    first = 0
    while len(text) - first > CHUNK_CHARS_MAX:
        until = _end(text, first + CHUNK_CHARS_MAX)
        yield first, until
        first = until - OVERLAP_CHARS
    yield first, len(text)


def _end(text: str, most: int) -> int:
    for mark in _BREAKS:
        at = text.rfind(mark, most - _LOOK_CHARS, most)
        if at >= 0:
            return at + len(mark)
    return most
