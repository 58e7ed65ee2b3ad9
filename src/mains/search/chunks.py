"""A long text as chunks that overlap, so that a hit shows where in it the words stand. Pure."""

from __future__ import annotations

from collections.abc import Iterator

CHUNK_CHARS_MAX = 2_000
OVERLAP_CHARS = 200  # the end of a chunk is the beginning of the next: a sentence of this length is whole in one
_BREAKS = ("\n\n", "\n", ". ", "。", " ")  # where a chunk ends best
_LOOK = 5  # a chunk may end a fifth of its longest size before that


def chunks_of(text: str, most: int = CHUNK_CHARS_MAX, overlap: int = OVERLAP_CHARS) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) character of each chunk, in order; together they are the whole text.

    A chunk has at most `most` characters, and begins `overlap` before the end of the last. A text without characters
    has one chunk, so that each document has its place.
    """
    first = 0
    while len(text) - first > most:
        until = _end(text, first + most, most // _LOOK)
        yield first, until
        first = until - overlap
    yield first, len(text)


def _end(text: str, most: int, look: int) -> int:
    for mark in _BREAKS:
        at = text.rfind(mark, most - look, most)
        if at >= 0:
            return at + len(mark)
    return most
