"""The vectors of an index: asked for on the event loop, kept by its thread.

A failing embedder costs a recall at most QUERY_S, once in RETRY_S: words alone answer until then, and `fault` says why.
Chunks get their vectors after they are indexed, when there is leisure, in their order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

from mains.errors import MainsError
from mains.search.finder import Finder, Meant
from mains.search.vectors import PIECE_CHARS_MAX, Embedder, packed, pieces_of

QUERY_S = 5.0
BATCH_S = 120.0
RETRY_S = 60.0
BATCH_CHUNKS = 16  # of some five pieces each

Call = Callable[..., Awaitable[Any]]
"""`await call(function, *arguments)`: in the index's thread."""


class Meaning:
    """See the module's header. Without an embedder it does nothing."""

    def __init__(
        self, embedder: Embedder | None, finder: Finder, call: Call, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._embedder = embedder
        self._finder = finder
        self._call = call
        self._monotonic = monotonic
        self._again_at = 0.0
        self.fault = ""

    async def of_query(self, text: str) -> Meant | None:
        """What a query means; None: words alone are searched for."""
        made = await self._embed([text[:PIECE_CHARS_MAX]], QUERY_S)
        return Meant(made[0], made[1][0]) if made and made[1][0] else None

    async def tend(self, space: str) -> bool:
        """Make vectors for some chunks of a space; False: there is nothing to do, or it cannot be done now."""
        if self._embedder is None:
            return False
        wanting = await self._call(self._finder.wanting, space, self._embedder.name, BATCH_CHUNKS)
        if wanting is None:
            return False
        pieces = [pieces_of(text) for text in wanting.texts]
        made = await self._embed([piece for each in pieces for piece in each], BATCH_S)
        if made is None:
            return False
        name, vectors = made[0], iter(made[1])
        numbers = [b"".join(islice(vectors, len(each))) for each in pieces]
        await self._call(self._finder.keep, space, wanting, name, numbers)
        return True

    async def _embed(self, texts: Sequence[str], wait_s: float) -> tuple[str, list[bytes]] | None:
        """The embedder's name and the vectors, packed; None when there is none or it fails."""
        if self._embedder is None or self._monotonic() < self._again_at:
            return None
        name, asked = self._embedder.name, [text if text.strip() else "-" for text in texts]
        try:
            async with asyncio.timeout(wait_s):
                vectors = await self._embedder.embed(asked)
        except TimeoutError:
            self._failed(f"{name} did not answer within {wait_s:g} s")
            return None
        except MainsError as error:
            self._failed(str(error))
            return None
        if len(vectors) != len(texts):
            self._failed(f"{name} gave {len(vectors)} vectors for {len(texts)} texts")
            return None
        self.fault = ""
        return name, [packed(vector) for vector in vectors]

    def _failed(self, why: str) -> None:
        self.fault = f"searching by words alone: {why}"
        self._again_at = self._monotonic() + RETRY_S
