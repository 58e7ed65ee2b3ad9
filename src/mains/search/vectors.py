"""Search by meaning, as an option: vectors of chunks, and how their ranking and that of the words become one. Pure.

An `Embedder` turns texts into vectors: the nearer, the more alike in meaning. It is asked on the event loop, never in
the index's thread, and it may fail: words alone answer then. Vectors are kept at length 1: a product is a cosine.

Rankings are joined by reciprocal rank (Cormack, Clarke and Buettcher 2009): each gives 1 / (60 + its place). Scores of
the two are of different kinds and cannot be added; places can.
"""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import mul
from typing import Protocol, TypeVar

RANK_OFFSET = 60
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
