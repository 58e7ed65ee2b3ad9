"""The page store: immutable, content-addressed pages, and the context (page table) of each process.

A page's name is the SHA-256 of its bytes, in hexadecimal. Pages are stored once for all processes. Kinds: program
(the file's text), tree, inputs and tools (JSON), message (a `Message` as JSON), result (text or JSON).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from mains.errors import NotFoundError
from mains.kernel.journal import Journal
from mains.kernel.ports import Message
from mains.kernel.tx import Tx

_encode = msgspec.json.Encoder().encode


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
    row = tx.one("page_get", page)
    if row is None:
        raise NotFoundError(f"page {page} does not exist")
    data: bytes = row[0]
    return data


def read(journal: Journal, page: str) -> bytes:
    """The bytes of a page, for readers. Raises NotFoundError."""
    rows = journal.rows("page_get", page)
    if not rows:
        raise NotFoundError(f"page {page} does not exist")
    data: bytes = rows[0][0]
    return data


def extend(tx: Tx, pid: int, length: int, pages: Sequence[str]) -> None:
    """Append pages to the context of a process that has `length` of them."""
    tx.many("context_insert", [(pid, length + at, page) for at, page in enumerate(pages)])


def read_context(journal: Journal, pid: int, start: int = 0) -> list[bytes]:
    """The bytes of a process's pages from `start` on, in order."""
    return [data for (data,) in journal.rows("context_get", pid, start)]


def verify(journal: Journal) -> list[str]:
    """Every page whose bytes are not what its name says, and every context entry without a page."""
    faults = [
        f"page {name}: its bytes have another hash" for name, data in journal.scan("page_scan") if name_of(data) != name
    ]
    return faults + [
        f"process {pid}: context position {position} names a page that does not exist"
        for pid, position in journal.scan("context_missing")
    ]
