"""A model call that waits for its turn, as the scheduler sees it, and what it costs in the scheduler's money. Pure.

One charge counts all: a token that the engine must read is 1, a token that it must make is `OUTPUT_WEIGHT`, a token
that it still has from the call before is nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import msgspec

OUTPUT_WEIGHT = 4
"""What a token of output weighs against one of input. Hosted models price output at four to five times the input
(Claude and Qwen price lists, 2026); VTC (OSDI 2024) takes 2, from the price list of its time."""

Segment = tuple[Hashable, int]
"""A stretch of a prompt: a name that says what stands there, and its tokens. Equal names are equal text."""


class Waiting(msgspec.Struct, frozen=True):
    """A call that waits. `program`: the root of its process tree (a pid); `prefix`: its prompt from the beginning.

    `output_tokens` is an estimate; `deadline_ms` is when it should have begun (0: no deadline).
    """

    pid: int
    tenant: int
    band: str
    program: int
    input_tokens: int
    output_tokens: int
    prefix: tuple[Segment, ...] = ()
    deadline_ms: int = 0


def charge(input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What a call is charged, in weighted tokens: what is read anew, and what is made."""
    return max(0, input_tokens - cached_tokens) + OUTPUT_WEIGHT * max(0, output_tokens)


class Gate(Protocol):
    """A bound on the rate of an engine's calls (requests and tokens a minute). It is asked for one call: the next."""

    def allows(self, waiting: Waiting, now_ms: int) -> bool:
        """Whether this call may leave now. Asking changes nothing."""
        ...

    def next_ms(self, waiting: Waiting, now_ms: int) -> int | None:
        """When this call may leave at the earliest, by what is known now; None: when a call in flight has ended."""
        ...

    def dispatched(self, waiting: Waiting, now_ms: int) -> None:
        """This call leaves now."""
        ...
