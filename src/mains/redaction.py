"""Redaction: known values are found in a text, also in other spellings, and become `[secret NAME]`.

    redactor = Redactor([("token", "s3cr3t-value")])
    redactor.redact("got s3cr3t-value")      # got [secret token]

The spellings: as it is; in base64 (both alphabets, at all three alignments); in hex; URL-encoded (as libraries do it,
and every byte); escaped for JSON, HTML and Python; each also with line ends between its characters, as encoders wrap
long texts. Of a value of several lines each long line counts by itself. What was cut into pieces, reversed,
compressed or encrypted is not found: whoever holds a value can always say it in a way that nobody knows.

How it is quick: one look decides which spellings can be there at all. A spelling of 15 bytes or more covers some
aligned word of 8 bytes of the text, wherever it stands; so the words of the text are compared with those of all
spellings, and only what is left is searched for by itself. The same with words of 4 bytes, for 7 bytes and more.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, quote_plus

CHARS_MIN = 6
"""A shorter value stands in too many texts by chance."""

_SIZES: dict[int, Literal["Q", "I"]] = {8: "Q", 4: "I"}  # of words, with their letter in `memoryview.cast`
_LINE_CHARS_MIN = 8
_DEPTH_MAX = 200
_WRAP = rb"(?:\\?\r?\\?\n|(?:\\r)?\\n)?"


class _Span(NamedTuple):
    start: int
    end: int
    name: str


class Redactor:
    """Finds the values that it was made with. It never changes; making one takes about a millisecond for each value."""

    def __init__(self, values: Iterable[tuple[str, str]]) -> None:
        self._names: dict[bytes, str] = {}
        for name, value in values:
            for spelling in spellings(value):
                self._names.setdefault(spelling, name)
        self._words: dict[int, dict[int, list[bytes]]] = {}
        self._short: list[bytes] = []
        for spelling in self._names:
            size = next((size for size in _SIZES if len(spelling) >= 2 * size - 1), 0)
            if not size:
                self._short.append(spelling)
            for word in _words_of(spelling, size) if size else ():
                self._words.setdefault(size, {}).setdefault(word, []).append(spelling)
        self.longest = max(map(len, self._names), default=0)
        """Bytes of the longest spelling."""

    def redact(self, text: str) -> str:
        """The text without the values."""
        if len(text) < CHARS_MIN or not self._names:
            return text
        data = text.encode("utf-8", "surrogatepass")
        found = self.redact_bytes(data)
        return text if found is data else found.decode("utf-8", "surrogatepass")

    def redact_bytes(self, data: bytes) -> bytes:
        """The same for bytes; the same object when there is nothing to redact."""
        if len(data) < CHARS_MIN or not self._names:
            return data
        spans = sorted(self._spans(data))
        if not spans:
            return data
        parts, at = [], 0
        for start, end, name in _merged(spans):
            parts += [data[at:start], f"[secret {name}]".encode()]
            at = end
        return b"".join([*parts, data[at:]])

    def redact_json(self, value: Any, depth: int = 0) -> Any:
        """Plain JSON without the values: in texts and in the names of fields."""
        if isinstance(value, str):
            return self.redact(value)
        if depth > _DEPTH_MAX:
            return value
        if isinstance(value, dict):
            return {self.redact_json(key, depth): self.redact_json(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.redact_json(each, depth + 1) for each in value]
        return value

    def _spans(self, data: bytes) -> Iterator[_Span]:
        seen: defaultdict[bytes, int] = defaultdict(int)
        for size, words in self._words.items():
            whole = len(data) - len(data) % size
            for word in set(filter(words.__contains__, memoryview(data)[:whole].cast(_SIZES[size]))):
                for spelling in words[word]:
                    seen[spelling] += 1
        has_lines = bool(seen) and (b"\n" in data or b"\\n" in data)
        for spelling in [*seen, *self._short]:
            # Wrapped, it lacks a word or two; of what lacks more, too little is there.
            wrapped = has_lines and seen[spelling] > len(spelling) // 64
            yield from _places(data, spelling, self._names[spelling], wrapped=wrapped)


def spellings(value: str) -> set[bytes]:
    """The value as it may stand in a text."""
    found: set[bytes] = set()
    for part in _parts(value):
        data = part.encode("utf-8", "surrogatepass")
        found |= {data, data.hex().encode(), data.hex().upper().encode(), *_base64(data)}
        every = "".join(f"%{byte:02x}" for byte in data)
        texts = [quote(data, safe=safe) for safe in ("", "/", "/:@?&=+$,;!*'()~", "-._~")] + [quote_plus(data)]
        texts += [every, every.upper(), *(re.sub("%..", lambda found: found[0].lower(), each) for each in texts)]
        in_json = [json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]]
        in_json += [each.replace("/", "\\/") for each in in_json]
        in_json += [json.dumps(each)[1:-1] for each in in_json]  # JSON within JSON
        texts += [*in_json, html.escape(part), html.escape(part, quote=False), repr(part)[1:-1]]
        found |= {each.encode("utf-8", "surrogatepass") for each in texts}
    return {each for each in found if len(each) >= CHARS_MIN}


def _parts(value: str) -> set[str]:
    """The value, and its long lines: a log has one line at a time. The frame lines of a key file say nothing."""
    lines = [line.strip() for line in value.splitlines()]
    return {value, *(line for line in lines if len(line) >= _LINE_CHARS_MIN and not line.startswith("-----"))}


def _base64(data: bytes) -> Iterator[bytes]:
    """What of the value's base64 does not depend on what stands before and behind it (RFC 4648)."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + data)
        sure = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield sure
        yield sure.replace(b"+", b"-").replace(b"/", b"_")


def _words_of(spelling: bytes, size: int) -> set[int]:
    """Every word of this size in a spelling."""
    words: set[int] = set()
    for shift in range(size):
        end = shift + (len(spelling) - shift) // size * size
        words.update(memoryview(spelling[shift:end]).cast(_SIZES[size]))
    return words


def _places(data: bytes, spelling: bytes, name: str, *, wrapped: bool) -> Iterator[_Span]:
    at = data.find(spelling)
    while at >= 0:
        yield _Span(at, at + len(spelling), name)
        at = data.find(spelling, at + 1)
    if wrapped:
        for found in re.finditer(_WRAP.join(re.escape(spelling[i : i + 1]) for i in range(len(spelling))), data):
            yield _Span(found.start(), found.end(), name)


def _merged(spans: list[_Span]) -> Iterator[_Span]:
    """Spans that overlap as one, with the name of the longest: of two values that overlap nothing is left."""
    start, end, name = spans[0]
    longest = end - start
    for each in spans[1:]:
        if each.start >= end:
            yield _Span(start, end, name)
            start, end, name = each
            longest = end - start
            continue
        if each.end - each.start > longest:
            longest, name = each.end - each.start, each.name
        end = max(end, each.end)
    yield _Span(start, end, name)
