"""The page store: immutable, content-addressed pages, and the context (page table) of each process.

A page's name is the SHA-256 of its bytes, in hexadecimal. Pages are stored once for all processes. Kinds: program
(the file's text), tree, inputs and tools (JSON), message (a `Message` as JSON), result (text or JSON).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from mains.errors import NotFoundError
from mains.kernel.cover import Cover, Span, chain, grown, layout, owners, seed
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.process import Process
from mains.kernel.tx import Row, Tx

Rows = Callable[..., list[Row]]
"""Gives the rows of a named query: `tx.rows` within an operation, `journal.rows` for readers."""

_encode = msgspec.json.Encoder().encode
_NO_SEQ = 2**62  # above every event and every position


def name_of(data: bytes) -> str:
    """The name of a page with these bytes."""
    return hashlib.sha256(data).hexdigest()


def put(tx: Tx, kind: str, data: bytes, parts: Iterable[str] = ()) -> str:
    """Store `data` (once) and name it; `parts` are the pages that it names itself.

    An event of the same transaction must name the page: one that no event and no page names may be erased.
    """
    name = name_of(data)
    tx.run("page_insert", name, kind, data)
    for part in parts:
        tx.run("page_part_insert", part, name)
    return name


def put_message(tx: Tx, message: Message) -> str:
    """Store a message as a page and name it."""
    return put(tx, "message", _encode(message))


def get(tx: Tx, page: str) -> bytes:
    """The bytes of a page. Raises NotFoundError."""
    return _one(tx.rows, page)


def read(journal: Journal, page: str) -> bytes:
    """The bytes of a page, for readers. Raises NotFoundError."""
    return _one(journal.rows, page)


def extend(tx: Tx, p: Process, pages: Sequence[str]) -> None:
    """Append pages to the context of a process, as it stands before the event that names them."""
    start = grown(p)
    tx.many("context_insert", [(p.pid, start + at, page) for at, page in enumerate(pages)])


def open_with(tx: Tx, pid: int, opening: Sequence[str]) -> None:
    """Give a context these pages as its opening, in place of the one that it has."""
    tx.run("context_delete_opening", pid)
    tx.many("context_insert", [(pid, at - len(opening), page) for at, page in enumerate(opening)])


def covers_of(rows: Rows, p: Process, start: int = 0) -> list[Cover]:
    """What was evicted from a context, from position `start` on: the oldest first, what it maps before its own.

    What the latest cover of the beginning covers is not read: a summary ends the work that came before it.
    """
    if not (p.covers or p.maps):
        return []
    of = [(each.pid, each.seq, each.until) for each in p.maps] + [(p.pid, _NO_SEQ, _NO_SEQ)]
    found: list[Row] = []
    for each in reversed(of if start == 0 else []):
        if found := rows("cover_latest", *each):
            start = found[0][2]
            break
    found += [row for pid, seq, until in of for row in rows("cover_of", pid, start, seq, until)]
    return [Cover(seq, first, until, tuple(pages.split())) for seq, first, until, pages in found]


def every_cover(rows: Rows, p: Process) -> list[Cover]:
    """All that was ever evicted from a context, the oldest first, what it maps before its own."""
    of = [(each.pid, each.seq, each.until) for each in p.maps] + [(p.pid, _NO_SEQ, _NO_SEQ)]
    found = [row for pid, seq, until in of for row in rows("cover_of", pid, 0, seq, until)]
    return [Cover(seq, first, until, tuple(pages.split())) for seq, first, until, pages in found]


class Place(NamedTuple):
    """A page that stands for the positions from `position` to below `until`: for one, or with others for a cover's."""

    position: int
    until: int
    page: str
    data: bytes


def span(rows: Rows, p: Process, first: int, until: int) -> list[Place]:
    """Positions from `first` to below `until` as they were said."""
    return [place for owner in owners(p.pid, p.maps, first, until) for place in _own(rows, *owner)]


def frame(rows: Rows, p: Process, start: int = -1) -> list[Place]:
    """What stands in the frame, in order; from position `start` on (below 0: from the beginning)."""
    if not (p.covers or p.maps):  # nothing has left it, and it has all of it: one look
        return _own(rows, p.pid, start if start >= 0 else -p.opening, grown(p))
    shown = _own(rows, p.pid, -p.opening, 0) if start < 0 else []
    for part in layout(covers_of(rows, p, max(0, start)), grown(p)):
        if isinstance(part, Span):
            shown += span(rows, p, max(start, part.first), part.until)
        elif part.first >= start:
            shown += [Place(part.first, part.until, page, _one(rows, page)) for page in part.pages]
    return shown


def _own(rows: Rows, pid: int, first: int, until: int) -> list[Place]:
    found = rows("context_span", pid, first, until)
    return [Place(position, position + 1, page, data) for position, page, data in found]


def frame_hash(p: Process, names: Iterable[str]) -> str:
    """The hash of a frame of a process that holds pages of these names."""
    return chain(seed(p.program, p.tools), names)


def opening_of(rows: Rows, p: Process) -> tuple[str, ...]:
    """The pages of a context's opening."""
    return tuple(place.page for place in _own(rows, p.pid, -p.opening, 0))


def known_frame(tx: Tx, p: Process) -> str:
    """The hash of the frame as it stands; that of a process which an older Mains started is made from its pages."""
    return p.frame or frame_hash(p, [place.page for place in frame(tx.rows, p)])


def history(rows: Rows, p: Process, start: int = 0) -> list[Place]:
    """A whole context from its entry `start` on (0 is the first of its opening), whatever was evicted."""
    first = start - p.opening
    opening = _own(rows, p.pid, first, 0) if first < 0 else []
    return opening + span(rows, p, max(first, 0), grown(p))


def _one(rows: Rows, page: str) -> bytes:
    found = rows("page_get", page)
    if not found:
        raise NotFoundError(f"page {page} does not exist")
    data: bytes = found[0][0]
    return data


def verify(journal: Journal) -> list[str]:
    """Every page whose bytes are not what its name says, and every context entry without a page."""
    faults = [
        f"page {name}: its bytes have another hash" for name, data in journal.scan("page_scan") if name_of(data) != name
    ]
    return faults + [
        f"process {pid}: context position {position} names a page that does not exist"
        for pid, position in journal.scan("context_missing")
    ]
