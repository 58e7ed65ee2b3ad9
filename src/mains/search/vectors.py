"""Search by meaning, as an option: vectors of chunks, and how their ranking and that of the words become one. Pure.

A chunk has a vector for each of its pieces of some PIECE_CHARS_MAX characters, and is as near as the nearest of them.
One vector for 2,000 characters tells what most of them are about, and nothing of one sentence among them; and many
models read 512 tokens of a text, which is 2,000 characters of English, but 700 of Chinese.

An `Embedder` turns texts into vectors: the nearer, the more alike in meaning. It is asked on the event loop, never in
the index's thread, and it may fail: words alone answer then. Vectors are kept at length 1: a product is a cosine.

Rankings are joined by reciprocal rank (Cormack, Clarke and Buettcher 2009): each gives 1 / (RANK_OFFSET + its place).
Scores of the two are of different kinds and cannot be added; places can. They took 60, for lists of a thousand. Ours
have some thirty places, where 60 makes the first place worth hardly more than the last: whatever stands in both lists,
however far down, came before the best of either. With 1, at most three things can come before the best of either.
"""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import mul
from typing import Protocol, TypeVar

from mains.search.chunks import chunks_of

RANK_OFFSET = 1
PIECE_CHARS_MAX = 500
PIECE_OVERLAP_CHARS = 50
T = TypeVar("T", bound=Hashable)


class Embedder(Protocol):
    """Makes vectors of texts. `name` changes when the vectors do: those of another name are not compared."""

    @property
    def name(self) -> str:
        """The model, and what else decides what a vector is."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, all of one size. Raises EngineError."""
        ...


def packed(vector: Iterable[float]) -> bytes:
    """A vector at length 1, as float32, little-endian; empty when it has no direction."""
    numbers = array.array("d", vector)
    largest = max(map(abs, numbers), default=0.0)
    if not 0 < largest < math.inf:
        return b""
    numbers = array.array("d", (number / largest for number in numbers))  # so that no square is too small or too large
    length = math.sqrt(sum(map(mul, numbers, numbers)))
    if not length < math.inf:
        return b""
    made = array.array("f", (number / length for number in numbers))
    if sys.byteorder == "big":
        made.byteswap()
    return made.tobytes()


def unpacked(data: bytes) -> array.array[float]:
    """The vector that `packed` made. Raises ValueError for other bytes."""
    made = array.array("f")
    made.frombytes(data)
    if sys.byteorder == "big":
        made.byteswap()
    return made


def pieces_of(text: str) -> list[str]:
    """The pieces of a chunk, each of which has a vector; at least one."""
    return [text[first:until] for first, until in chunks_of(text, PIECE_CHARS_MAX, PIECE_OVERLAP_CHARS)]


def nearest(query: array.array[float], numbers: bytes) -> float | None:
    """The cosine of a query and the nearest of the vectors that stand one after the other; None: there are none.

    Vectors of another size than the query's are not compared.
    """
    size = len(query) * query.itemsize
    if not numbers or not size or len(numbers) % size:
        return None
    return max(product(query, unpacked(numbers[at : at + size])) for at in range(0, len(numbers), size))


def _product(one: array.array[float], other: array.array[float]) -> float:
    return float(sum(map(mul, one, other)))


# Python 3.12 has this in C; before, 5,000 vectors of 384 numbers take some 60 ms.
product: Callable[[array.array[float], array.array[float]], float] = getattr(math, "sumprod", _product)


def fused(*rankings: Sequence[T]) -> dict[T, float]:
    """What each thing of these rankings scores by reciprocal rank; a thing counts once in each, at its best place."""
    scores: dict[T, float] = {}
    for ranking in rankings:
        for place, thing in enumerate(dict.fromkeys(ranking), start=1):
            scores[thing] = scores.get(thing, 0.0) + 1 / (RANK_OFFSET + place)
    return scores
