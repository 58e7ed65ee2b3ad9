"""Excerpt: the part of a text that answers a query best, in so many bytes. Pure."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
_WORDS_MAX = 32  # of a query
_PLACES_MAX = 200  # of one word in a text
_EQUAL = 1e-9  # sums that differ by less are rounded apart


def excerpt(text: str, query: str, bytes_max: int) -> tuple[int, str]:
    """Where the part begins, in characters, and the part: the whole text when it fits.

    The query's own wording counts most, then its words that stand close together (of a word in a script without spaces,
    each two characters). A word counts for less the more often the text has it: "the" is everywhere, and tells nothing
    of where the answer is. What is found is in the middle of the part, for the answer may stand before it or behind it.
    The part does not begin within a word where that can be.
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
    """Where a part of so many characters begins that has what is looked for in its middle."""
    if query and (found := text.find(query)) >= 0:
        middle = found + len(query) // 2
    else:
        middle = _middle([_places(text, word) for word in words_of(query)], size // 2)
    return max(0, min(middle - size // 2, len(text) - size))


def _middle(places: list[list[int]], span: int) -> int:
    """The middle of the most telling words (the places of each are given) that stand within so many characters.

    A word weighs 1 through the number of its places; the middle is their weighted mean.
    """
    line = sorted((at, word) for word, each in enumerate(places) for at in each)
    held = [0] * len(places)  # of each word, its places within reach
    first, weight, most, best = 0, 0.0, 0.0, line[:0]
    for last, (at, word) in enumerate(line):
        weight += 0 if held[word] else 1 / len(places[word])
        held[word] += 1
        while line[first][0] < at - span:
            left = line[first][1]
            held[left] -= 1
            weight -= 0 if held[left] else 1 / len(places[left])
            first += 1
        if weight > most + _EQUAL:
            most, best = weight, line[first : last + 1]
    weights = [1 / len(places[word]) for _, word in best]
    return round(sum(at * each for (at, _), each in zip(best, weights, strict=True)) / sum(weights)) if best else 0


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
