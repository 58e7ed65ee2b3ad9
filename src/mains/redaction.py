"""Redaction: known values are found in a text, also in other spellings, and become `[secret NAME]`.

    redactor = Redactor([("token", "s3cr3t-value")])
    redactor.redact("got s3cr3t-value")      # got [secret token]

The spellings: as it is, and in one case; in base64 (both alphabets, at all three alignments); in hex; URL-encoded (as
libraries do it, and every byte); escaped for JSON, HTML and Python. Each also where a text breaks it, as encoders wrap
long texts, or has some of its characters escaped for JSON, a URL or HTML (a *view* of the text: without its line ends,
or with such escapes undone). Of a value of several lines each long line counts by itself. What was cut
into pieces, reversed, compressed or encrypted is not found: whoever holds a value can always say it in a way that
nobody knows.

How it is quick: one look decides which spellings can be there at all. A spelling of 15 bytes or more covers some
aligned word of 8 bytes of the text, wherever it stands; so the words of the text are compared with those of all
spellings, and only what is left is searched for by itself. The same with words of 4 bytes, for 7 bytes and more.
"""

from __future__ import annotations

import base64
import bisect
import functools
import html
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, quote_plus

CHARS_MIN = 6
"""A shorter value stands in too many texts by chance."""

_SIZES: dict[int, Literal["Q", "I"]] = {8: "Q", 4: "I"}  # of words, with their letter in `memoryview.cast`
_LINE_CHARS_MIN = 8
_DEPTH_MAX = 200
_ESCAPE = re.compile(r"\\u[0-9a-f]{4}")


class _Escape:
    """A way to write characters otherwise: how each is written, and what it stands for."""

    def __init__(self, pattern: bytes, character: Callable[[bytes], bytes]) -> None:
        self.pattern = re.compile(pattern)
        self.character = functools.lru_cache(4_096)(character)

    def undo(self, data: bytes) -> bytes:
        """The text with the characters themselves."""
        return self.pattern.sub(lambda found: self.character(found[0]), data)


_ESCAPES = {  # by what shows that a text may have some; first ends of lines, also as JSON writes them: they are nothing
    b"\n": _Escape(rb"\r?\n", lambda _: b""),
    b"\\n": _Escape(rb"(?:\\r)?\\n", lambda _: b""),
    b"\\u": _Escape(rb"\\+u[0-9a-fA-F]{4}", lambda each: chr(int(each[-4:], 16)).encode("utf-8", "surrogatepass")),
    b"%": _Escape(rb"%[0-9a-fA-F]{2}", lambda each: bytes([int(each[1:], 16)])),
    b"&": _Escape(
        rb"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});",
        lambda each: html.unescape(each.decode()).encode("utf-8", "surrogatepass"),
    ),
}


class _Span(NamedTuple):
    start: int
    end: int
    name: str


class Redactor:
    """Finds the values that it was made with. It never changes; making one takes a millisecond for each value that the
    one `before` it did not have."""

    def __init__(self, values: Iterable[tuple[str, str]], before: Redactor | None = None) -> None:
        self._names: dict[bytes, str] = {}
        self._spelt: dict[str, set[bytes]] = {}
        for name, value in values:
            known = before._spelt.get(value) if before is not None else None
            self._spelt[value] = known or spellings(value)
            for spelling in self._spelt[value]:
                self._names.setdefault(spelling, name)
        self._words: dict[int, dict[int, list[bytes]]] = {}
        self._short: list[bytes] = []
        for spelling in self._names:
            size = next((size for size in _SIZES if len(spelling) >= 2 * size - 1), 0)
            if not size:
                self._short.append(spelling)
            for word in _words_of(spelling, size) if size else ():
                self._words.setdefault(size, {}).setdefault(word, []).append(spelling)

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
        if isinstance(value, int) and not isinstance(value, bool):
            return found if (found := self.redact(str(value))) != str(value) else value
        if depth > _DEPTH_MAX:
            return value
        if isinstance(value, dict):
            return {self.redact_json(key, depth): self.redact_json(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list):
            return [self.redact_json(each, depth + 1) for each in value]
        return value

    def _spans(self, data: bytes) -> Iterator[_Span]:
        for spelling in [*self._seen(data), *self._short]:
            yield from _places(data, spelling, self._names[spelling])
        for mark, escape in _ESCAPES.items():
            if mark in data:
                undone = escape.undo(data)
                there = [each for each in (*self._seen(undone), *self._short) if each in undone]
                if there:
                    escaped = _View(data, escape.pattern, escape.character)
                    for spelling in there:
                        yield from escaped.places(spelling, self._names[spelling])

    def _seen(self, data: bytes) -> set[bytes]:
        """The spellings that may be there, but for short ones."""
        seen: set[bytes] = set()
        for size, words in self._words.items():
            whole = len(data) - len(data) % size
            for word in set(filter(words.__contains__, memoryview(data)[:whole].cast(_SIZES[size]))):
                seen.update(words[word])
        return seen


class _View:
    """A text with something else in place of each match, and where each of its bytes stood."""

    def __init__(self, data: bytes, pattern: re.Pattern[bytes], instead: Callable[[bytes], bytes]) -> None:
        parts: list[bytes] = []
        self._here, self._there = [0], [(0, 0)]  # where each part begins; of a match, that and how long it was
        at = here = 0
        for found in pattern.finditer(data):
            new = instead(found[0])
            parts += [data[at : found.start()], new]
            here += found.start() - at
            at = found.end()
            if new:
                self._here.append(here)
                self._there.append((found.start(), at - found.start()))
            here += len(new)
            self._here.append(here)
            self._there.append((at, 0))
        self.data = b"".join([*parts, data[at:]])

    def places(self, spelling: bytes, name: str) -> Iterator[_Span]:
        """Where a spelling stands, in the text as it was."""
        for start, end, _ in _places(self.data, spelling, name):
            yield _Span(self._place(start)[0], self._place(end - 1)[1], name)

    def _place(self, at: int) -> tuple[int, int]:
        """Where what became a byte began and ended."""
        part = bisect.bisect_right(self._here, at) - 1
        there, length = self._there[part]
        begin = there if length else there + at - self._here[part]
        return begin, begin + (length or 1)


def spellings(value: str) -> set[bytes]:
    """The value as it may stand in a text."""
    found: set[bytes] = set()
    for part in _parts(value):
        data = part.encode("utf-8", "surrogatepass")
        found |= {data, data.hex().encode(), data.hex().upper().encode(), *_base64(data)}
        texts = [
            part.lower(),
            part.upper(),
            *_in_urls(data),
            *_in_json(part),
            *_in_html(part),
            repr(part)[1:-1],
            repr(data)[2:-1],
        ]
        found |= {each.encode("utf-8", "surrogatepass") for each in texts}
    return {each for each in found if len(each) >= CHARS_MIN}


def _in_urls(data: bytes) -> Iterator[str]:
    """As libraries escape a part, a path, a query or a whole URL (RFC 3986 leaves them some choice), or every byte."""
    texts = [quote(data, safe=safe) for safe in ("", "/", "!*'()", ";,/?:@&=+$-_.!~*'()#", ":/?#[]@!$&'()*+,;=")]
    for each in (*texts, quote_plus(data), "".join(f"%{byte:02X}" for byte in data)):
        yield each
        yield re.sub("%..", lambda found: found[0].lower(), each)


def _in_json(part: str) -> Iterator[str]:
    """As libraries escape it (RFC 8259, section 7 leaves them all of these), and once more for JSON within JSON."""
    texts = [json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]]
    texts += [each.replace("/", "\\/") for each in texts]
    for text, signs in itertools.product(texts[:2], ("<>&", "<>&'+`")):
        for sign in signs:
            text = text.replace(sign, f"\\u{ord(sign):04x}")
        texts += [text, text.replace('\\"', "\\u0022")]
    for each in texts:
        for form in (each, _ESCAPE.sub(lambda found: found[0][:2] + found[0][2:].upper(), each)):
            yield form
            yield json.dumps(form)[1:-1]


def _in_html(part: str) -> Iterator[str]:
    """As libraries escape it."""
    yield html.escape(part)
    yield html.escape(part, quote=False)
    for quotes in (
        ("&#34;", "&#39;", "+"),
        ("&#34;", "&#39;", "&#43;"),
        ("&quot;", "&#39;", "+"),
        ("&quot;", "&apos;", "+"),
    ):
        text = html.escape(part, quote=False)
        for sign, escaped in zip("\"'+", quotes, strict=True):
            text = text.replace(sign, escaped)
        yield text


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
    """Words of a spelling of which a text that holds it has one at an aligned place: wherever it starts, the first
    aligned word begins at one of its first `size` bytes."""
    words: set[int] = set()
    for shift in range(size):
        words.update(memoryview(spelling[shift : shift + size]).cast(_SIZES[size]))
    return words


def _places(data: bytes, spelling: bytes, name: str) -> Iterator[_Span]:
    at = data.find(spelling)
    while at >= 0:
        yield _Span(at, at + len(spelling), name)
        at = data.find(spelling, at + 1)


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
