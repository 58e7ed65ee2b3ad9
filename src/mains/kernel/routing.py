"""Routing: which of several engines of one model gets a call. Pure.

The engine with the lowest score:

    (tokens it must read for this call + tokens it must read for those that wait for it) * (calls it runs + 1)

The first factor is what stands between the call and its first token, the second what slows each token after it. An
engine that has read the beginning of this prompt must read less of it, so a process stays where its context is warm as
long as the queue there is not worse than reading again: stickiness needs no rule of its own.

A call counts as `CALL_TOKENS` at least, here and in a queue. Without that, calls whose prompts are small, or shared and
warm, would be free: all of them would go to one engine and wait there while another is idle.

An engine that cannot take the call now (its circuit is open, its backend asked to wait, its budget is spent) is left
out while another can. When none can, the one that opens first is taken. One that has just failed this call is taken
when there is no other.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

CALL_TOKENS = 256
"""What a call costs whose prompt is read already, in tokens of prompt. An estimate of ours: in the time of a round trip
and of its first tokens an endpoint reads about so much."""


class Candidate(msgspec.Struct, frozen=True):
    """An engine that could serve a call. `index` is its place among the routes of the process.

    `new_tokens`: of this call's prompt, those that the engine has not read; `queued_tokens`: the same of the calls that
    wait for it, as `counted`; `running`: calls in flight; `opens_ms`: when it can take the call (0: now); `down`: not
    even then for sure; `failed`: it has just failed this very call.
    """

    index: int
    new_tokens: int
    queued_tokens: int
    running: int
    opens_ms: int = 0
    down: bool = False
    failed: bool = False


def score(candidate: Candidate) -> int:
    """What a call costs there; the lower the better."""
    return (counted(candidate.new_tokens) + candidate.queued_tokens) * (candidate.running + 1)


def counted(new_tokens: int) -> int:
    """What a call counts that must read so many tokens anew."""
    return max(CALL_TOKENS, new_tokens)


def choose(candidates: Iterable[Candidate]) -> Candidate:
    """The one that gets the call; of equals the first by index. Raises ValueError when there is none."""
    return min(candidates, key=lambda c: (c.down, c.opens_ms, c.failed, score(c), c.index))
