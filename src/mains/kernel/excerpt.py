"""Excerpt: the part of a text that answers a query best, in so many bytes. Pure."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
_WORDS_MAX = 32  # of a query
_PLACES_MAX = 200  # of one word in a text


def excerpt(text: str, query: str, bytes_max: int) -> tuple[int, str]:
    """Where the part begins, in characters, and the part: the whole text when it fits.

    The query's own wording counts most, then how many of its words stand in the part (of a word in a script without
    spaces, each two characters). The part does not begin within a word where that can be.
    """
    if len(text.encode()) <= bytes_max:
        return 0, text
    size = max(1, bytes_max * len(text) // len(text.encode()))
    start = _start(text.casefold(), query.casefold(), size)
    if start and (space := text.find(" ", start, start + size // 8)) >= 0:
        start = space + 1
    part = text[start : start + size].encode()[:bytes_max].decode(errors="ignore")
    return start, part


def _start(text: str, query: str, size: int) -> int:
    """Where a part of so many characters begins that holds the most of the query; a quarter of it is before."""
    if query and (found := text.find(query)) >= 0:
        return max(0, min(found - size // 4, len(text) - size))
    places = sorted((at, number) for number, word in enumerate(words_of(query)) for at in _places(text, word))
    best, most = 0, 0
    for first, (at, _) in enumerate(places):
        held = {number for place, number in places[first : first + _WORDS_MAX * 4] if place < at + size * 3 // 4}
        if len(held) > most:
            best, most = at, len(held)
    return max(0, min(best - size // 4, len(text) - size))


def words_of(query: str) -> list[str]:
    """The words of a query, in small letters; of one in a script without spaces each two characters."""
    query = query.casefold()
    found = []
    for word in _WORD.findall(query):
        found += (
            [word[at : at + 2] for at in range(len(word) - 1)] if ord(word[0]) > 0x2E7F and len(word) > 2 else [word]
        )
    return list(dict.fromkeys(found))[:_WORDS_MAX]


def _places(text: str, word: str) -> list[int]:
    places: list[int] = []
    at = text.find(word)
    while at >= 0 and len(places) < _PLACES_MAX:
        places.append(at)
        at = text.find(word, at + 1)
    return places
