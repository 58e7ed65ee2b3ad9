"""Where documents come from, and what a search gives back. Only values and one Protocol."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Doc(msgspec.Struct, frozen=True):
    """A document of a space: one page, at its position. `page` names its content: another content, another name."""

    position: int
    page: str
    text: str


class Hit(msgspec.Struct, frozen=True):
    """A document that answers a query. `text` is the part that fits best: characters `first` to `until` of it.

    Scores order the hits of one recall; they mean nothing between two.
    """

    space: str
    position: int
    page: str
    score: float
    first: int
    until: int
    text: str


class Source(Protocol):
    """Gives the documents of spaces. Called in the index's own thread, so it must be safe to call from any."""

    def read(self, space: str, start: int, most: int) -> list[Doc]:
        """At most `most` documents from position `start` on, in order; fewer than `most` only at the end of the space.

        Positions count from 0, may have gaps, and never change: only the end of a space grows. A space that does not
        exist, or not any more, has no documents. It must cost what it gives, not what stands before, and a document
        should have at most some 256 kB (one is indexed at a time). What it raises goes to whoever recalls.
        """
        ...
