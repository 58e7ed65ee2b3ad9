"""Routing: which of several engines that serve one model takes a call. Pure.

The call goes where the product of what must be read before it answers and of how many it shares the engine with is
smallest: (new + queued tokens) x (running + 1). `new` is what that engine has not read of the call's prompt, so that a
process stays where its context is warm until another engine is so much freer that reading it again pays (the score of
AIBrix and of llm-d's scheduler, without their weights). Engines that are down or closed are left out while another one
can serve.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Stand(msgspec.Struct, frozen=True):
    """How an engine stands to a call: tokens of it that must be read, tokens that wait before it, calls at work."""

    new_tokens: int
    queued_tokens: int
    running: int
    slots: int
    down: bool = False

    @property
    def score(self) -> tuple[bool, int]:
        """The smaller, the better."""
        return self.down, (self.new_tokens + self.queued_tokens) * (self.running + 1)


def choose(stands: Sequence[Stand], current: int) -> int:
    """The index of the engine that takes the call; of equals the current one, else the first."""
    return min(range(len(stands)), key=lambda index: (stands[index].score, index != current, index))
