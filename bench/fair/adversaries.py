"""Tenants that try to get more than their share. Tenant 0 is the victim, tenant 1 the adversary.

The victim's calls are of one modest size and ask for 60 % of the engine, so that it is entitled to its half and has
work waiting whenever the adversary takes more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.fair.call import Agent, Step
from bench.fair.engine import Speeds
from bench.fair.workloads import capacity_per_s, stream

MODEST = Step(512, 128)


def _victim(speeds: Speeds, until_s: float) -> list[Agent]:
    return stream(0, MODEST, per_s=0.6 * capacity_per_s(speeds, MODEST), until_s=until_s, seed=1)


def tiny(speeds: Speeds, until_s: float) -> list[Agent]:
    """Thousands of programs of one tiny call each: nobody has attained less service than a new program."""
    victim = _victim(speeds, until_s)
    step = Step(40, 10)
    return victim + stream(
        1, step, per_s=1.5 * capacity_per_s(speeds, step), until_s=until_s, seed=2, first=len(victim)
    )


def giant(speeds: Speeds, until_s: float) -> list[Agent]:
    """Prompts of 100,000 tokens, one every ten seconds: more than the engine can read."""
    victim = _victim(speeds, until_s)
    count = int(until_s / 10)
    return victim + [Agent(len(victim) + at, 1, 10.0 * at, (Step(100_000, 64),)) for at in range(count)]


def hogs(speeds: Speeds, until_s: float) -> list[Agent]:
    """Calls that all open with the same 6,000 tokens: always the longest cached prefix."""
    victim = _victim(speeds, until_s)
    step = Step(6_064, 128)
    rate = 1.5 * capacity_per_s(speeds, Step(64, 128))
    return victim + stream(
        1, step, per_s=rate, until_s=until_s, seed=3, first=len(victim), program="hog", opening=6_000
    )


def bursts(speeds: Speeds, until_s: float) -> list[Agent]:
    """Silence, then a minute's worth of the whole engine at once, once a minute: credit from idle time would pay."""
    victim = _victim(speeds, until_s)
    size = int(60 * capacity_per_s(speeds, MODEST))
    times = [60.0 * at for at in range(int(until_s / 60)) for _ in range(size)]
    return victim + [Agent(len(victim) + at, 1, time, (MODEST,)) for at, time in enumerate(times)]


def silent(speeds: Speeds, until_s: float) -> list[Agent]:
    """Ten programs a slot whose tool never returns after their first call, and a stream that asks for everything."""
    victim = _victim(speeds, until_s)
    count = 10 * speeds.slots
    stuck = [Agent(len(victim) + at, 1, 0.1 * at, (Step(512, 128, 0, math.inf), MODEST)) for at in range(count)]
    rate = 1.5 * capacity_per_s(speeds, MODEST)
    return victim + stuck + stream(1, MODEST, per_s=rate, until_s=until_s, seed=4, first=len(victim) + count)


ADVERSARIES: dict[str, Callable[[Speeds, float], list[Agent]]] = {
    "tiny programs": tiny,
    "giant prompts": giant,
    "prefix hogs": hogs,
    "bursts": bursts,
    "silent tools": silent,
}
