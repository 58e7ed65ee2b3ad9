"""A source for the tests of the index: documents in memory."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mains.search.index import Index
from mains.search.source import Doc

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where tests of many small files keep them: what a disk's flush costs is no question here."""


class Shelf:
    """Documents by space. `reads` says what was asked for."""

    def __init__(self, **spaces: list[str]) -> None:
        self.docs: dict[str, list[Doc]] = {}
        self.reads: list[tuple[str, int, int]] = []
        for space, texts in spaces.items():
            self.put(space, *texts)

    def put(self, space: str, *texts: str) -> None:
        """Add documents at the end of a space."""
        docs = self.docs.setdefault(space, [])
        for text in texts:
            page = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            docs.append(Doc(docs[-1].position + 1 if docs else 0, page, text))

    def read(self, space: str, start: int, most: int) -> list[Doc]:
        self.reads.append((space, start, most))
        return [doc for doc in self.docs.get(space, []) if doc.position >= start][:most]


@contextlib.asynccontextmanager
async def index_over(shelf: Any, path: Path, **options: Any) -> AsyncIterator[Index]:
    """An index that is closed at the end. It waits long: a machine with much else to do is no failure."""
    index = Index(path, shelf, **{"wait_s": 120.0, **options})
    try:
        yield index
    finally:
        await index.close()


async def indexed(index: Index) -> None:
    """Wait until all that was touched is indexed."""
    while (tending := index._tending) is not None and not tending.done():
        await tending
