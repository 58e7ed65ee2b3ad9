"""Mains: the very lane of `mains.kernel.scheduler`, told what the kernel can tell it and nothing more.

As in `mains.kernel.lanes`: nobody knows how long an answer will be, so the lane is told twice the average of the
process, and the cap at its first turn. A prompt is named as what all processes of the program open with, then the
process. The lane is told how much the cache holds (the key `cache_tokens` of an engine) and does not see what is in it;
it learns from the usage of a call what was cached. `Untold` is not told the size either, as without that key.
"""

from __future__ import annotations

import math

from bench.fair.call import Call
from bench.fair.engine import Started
from bench.fair.policy import Site
from mains.kernel.ports import Usage
from mains.kernel.prefixes import TOKENS_MAX
from mains.kernel.scheduler import Lane
from mains.kernel.tenants import QUANTUM
from mains.kernel.waiting import Waiting

OUTPUT_CAP = 1_024  # the kernel's own default


class Mains:
    """The lane of one engine."""

    def __init__(self, site: Site) -> None:
        self._lane = Lane(site.speeds.slots, prefix_tokens_max=self._kept_tokens_max(site))
        self._calls: dict[int, Call] = {}
        self._written: dict[int, int] = {}  # output of each agent so far

    def add(self, call: Call, now: float) -> None:
        """As the kernel queues a process that is READY."""
        self._calls[call.agent.number] = call
        self._lane.add(
            Waiting(
                pid=call.agent.number,
                tenant=call.tenant,
                band="normal",
                program=call.agent.number,
                input_tokens=call.step.input_tokens,
                output_tokens=self._estimate(call),
                prefix=_prefix(call),
            )
        )

    def choose(self, now: float) -> Call | None:
        """As the lane says."""
        waiting = self._lane.choose(round(now * 1000))
        return self._calls.pop(waiting.pid) if waiting else None

    def started(self, started: Started) -> None:
        """The lane knows: it has chosen."""

    def ended(self, started: Started, now: float) -> None:
        """What the engine reports."""
        step = started.call.step
        number = started.call.agent.number
        self._written[number] = self._written.get(number, 0) + step.output_tokens
        usage = Usage(step.input_tokens, started.cached, step.output_tokens)
        self._lane.settle(number, usage)
        self._lane.release(number)

    def wake_s(self, now: float) -> float:
        """There is no gate here, so never."""
        return math.inf

    def _kept_tokens_max(self, site: Site) -> int:
        return site.speeds.cache_tokens

    def _estimate(self, call: Call) -> int:
        return min(OUTPUT_CAP, 2 * self._written[call.agent.number] // call.at + 1) if call.at else OUTPUT_CAP


class Untold(Mains):
    """The same when nobody has said how much the engine keeps."""

    def _kept_tokens_max(self, site: Site) -> int:
        return TOKENS_MAX


def _prefix(call: Call) -> tuple[tuple[str, int], ...]:
    opening = min(call.agent.opening, call.step.input_tokens - 1)
    own = (f"pid {call.agent.number}", call.step.input_tokens - opening)
    return ((call.agent.program, opening), own) if opening else (own,)


def bound(slots: int, dearest: int) -> int:
    """The scheduler's stated bound of a gap, 2 (Q + 2 B C_max), with the dearest call that a run really had.

    An estimate may be dearer than any call and would make the stated bound larger; this is the stricter test.
    """
    return 2 * (QUANTUM + 2 * slots * dearest)
