"""What the simulator asks of a policy. Each in `bench/fair/policies` is one rule for whose call gets the next slot."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import msgspec

from bench.fair.call import Call
from bench.fair.engine import Speeds, Started
from mains.kernel.waiting import OUTPUT_WEIGHT


class Site(msgspec.Struct, frozen=True):
    """What a policy may know of the place where it works; `cached` is for those that live inside the engine."""

    speeds: Speeds
    cached: Callable[[Call], int]
    tenants: int


class Policy(Protocol):
    """A queue of calls. The simulator asks only while a slot is free."""

    def add(self, call: Call, now: float) -> None:
        """A call is ready."""

    def choose(self, now: float) -> Call | None:
        """Take a call out of the queue, or None: nobody may go now."""

    def started(self, started: Started) -> None:
        """The call that was chosen has its slot."""

    def ended(self, started: Started, now: float) -> None:
        """A call has its answer."""

    def wake_s(self, now: float) -> float:
        """When to ask again although nothing happens; infinite: no need."""


class Quiet:
    """A policy that learns nothing from what runs and never waits by itself."""

    def started(self, started: Started) -> None:
        """Nothing to learn."""

    def ended(self, started: Started, now: float) -> None:
        """Nothing to learn."""

    def wake_s(self, now: float) -> float:
        """Never."""
        return math.inf


def charge(uncached: int, output: int) -> int:
    """Weighted tokens of a call: the unit of every fairness figure here."""
    return uncached + OUTPUT_WEIGHT * output
