"""Text -> the terms under which it is found. Pure.

    words       case-folded, as they stand; identifiers also in parts: `parse_grant` is found as parse, grant and whole
    unspaced    Chinese, Japanese, Korean, Thai and their like: each character and each two that stand side by side
                (two-character words are most of Chinese; SQLite's trigrams miss them)
    signs       each character outside ASCII that is no letter: emoji, arrows, currencies

Text is brought to NFKC first (Unicode Standard Annex 15), so that full-width letters and half-width kana are found.
There are no stop words: what stands everywhere weighs next to nothing (`scoring.py`).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice, pairwise
from typing import NamedTuple

TERM_CHARS_MAX = 64  # of a longer word only the beginning is a term
QUERY_CHARS_MAX = 4_000
QUERY_TERMS_MAX = 256

_PARTS_MAX = 16  # of one word
_PART_CHARS_MIN = 2

# Scripts that are written without spaces, with their combining marks.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Myanmar, Khmer
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"  # Hangul
    "\u3005-\u3007\u3031-\u3035\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # kana, and signs of repetition
    "\u2e80-\u2fdf\u3100-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han, bopomofo
)
# Marks that belong to the letter before them, though Python's \w does not think so.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_ASCII = re.compile(r"\w+")
_ANY = re.compile(
    f"(?P<unspaced>[{_UNSPACED}]+)"
    f"|(?P<word>(?:(?![{_UNSPACED}])[\\w{_MARKS}])+)"
    "|(?P<sign>[^\\s\\x00-\\xa0\\ud800-\\udfff])"
)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+")
_WRAPPED = re.compile(f"(?<=[{_UNSPACED}])[ \\t]*\\r?\\n[ \\t]*(?=[{_UNSPACED}])")


class Terms(NamedTuple):
    """The terms of a text. `line`: in their order, one after the other. `inner`: what stands within those."""

    line: list[str]
    inner: list[str]


class Query(NamedTuple):
    """What is looked for: terms, those that stand side by side, and the wording (`worded` of it)."""

    terms: frozenset[str]
    pairs: frozenset[tuple[str, str]]
    wording: str


def terms_of(text: str) -> Terms:
    """Every term of a text, as often as it stands there. Takes any text, well-formed or not."""
    line: list[str] = []
    inner: list[str] = []
    if text.isascii():
        for word in _ASCII.findall(text):
            _add_word(word, line, inner)
        return Terms(line, inner)
    for found in _ANY.finditer(_joined(text)):
        piece = found[0]
        match found.lastgroup:
            case "word":
                _add_word(piece, line, inner)
            case "unspaced" if len(piece) > 1:
                line.extend(map("".join, pairwise(piece)))
                inner.extend(piece)
            case _:
                line.append(piece)
    return Terms(line, inner)


def line_of(text: str) -> list[str]:
    """The `line` of a text's terms, without the price of what stands within them."""
    if text.isascii():
        return [word[:TERM_CHARS_MAX] for word in _ASCII.findall(text.casefold())]
    return terms_of(text).line


def query_of(text: str) -> Query:
    """A query from any text. Of a long one, the beginning counts; without terms (`!?`), nothing is found."""
    text = text[:QUERY_CHARS_MAX]
    line, inner = terms_of(text)
    parts = (part for part in inner if not _is_unspaced(part))
    terms = islice(dict.fromkeys((*line, *parts)), QUERY_TERMS_MAX)
    return Query(frozenset(terms), frozenset(pairwise(line)), worded(text))


def worded(text: str) -> str:
    """A text as wordings are compared: case-folded, every white space one space."""
    return " ".join((text if text.isascii() else _joined(text)).casefold().split())


def _joined(text: str) -> str:
    """In NFKC, and unspaced text that a line break cuts in one piece."""
    return _WRAPPED.sub("", unicodedata.normalize("NFKC", text))


def _is_unspaced(piece: str) -> bool:
    found = _ANY.match(piece)
    return found is not None and found.lastgroup == "unspaced"


def _add_word(word: str, line: list[str], inner: list[str]) -> None:
    line.append(word[:TERM_CHARS_MAX].casefold())
    if word.isalpha() and (word.islower() or word.isupper() or word.istitle()):
        return
    parts = _PARTS.findall(word[:TERM_CHARS_MAX])
    if len(parts) > 1 or (parts and parts[0] != word):
        inner.extend(part.casefold() for part in parts[:_PARTS_MAX] if len(part) >= _PART_CHARS_MIN)
