"""A scheduling decision with 10,000 waiting calls: how long it takes, beside what the queue costs otherwise.

50 tenants in three bands, 300 programs with 17 images, prompts of two segments. As many calls come as go, so that
10,000 wait at each decision; 16 are in flight. A second world has one tenant with one program of 10,000 children, which
all have the same level and share a prompt.

Each decision is timed by itself, in wall time (what a user waits) and in processor time (which other programs on the
machine cannot spoil: on a busy one, some calls in a hundred are interrupted for milliseconds). The rival is the
plainest queue that there is: first come, first served (a deque).
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from collections.abc import Callable

from bench.report import Figure, Report, below
from mains.kernel.ports import Usage
from mains.kernel.scheduler import Lane
from mains.kernel.waiting import Waiting

GOAL_US = 1_000.0
_SLOTS = 16
_Maker = Callable[[random.Random, int], Waiting]


def _mixed(chance: random.Random, pid: int) -> Waiting:
    program = chance.randrange(300)
    band = chance.choice(("interactive", "normal", "normal", "batch"))
    prompt = ((program % 17, 250), (pid, chance.randrange(50, 3_000)))
    tokens = sum(length for _, length in prompt)
    return Waiting(pid, chance.randrange(50), band, program, tokens, chance.randrange(50, 1_000), prompt)


def _family(chance: random.Random, pid: int) -> Waiting:
    return Waiting(pid, 1, "normal", 1, 900, 200, (("image", 400), (pid, 500)))


class Spans:
    """Times of one kind of operation, in microseconds."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def time(self, work: Callable[[], Waiting | None]) -> Waiting | None:
        """Do it, and note how long it took."""
        wall, processor = time.perf_counter(), time.thread_time()
        made = work()
        self.processor.append((time.thread_time() - processor) * 1e6)
        self.wall.append((time.perf_counter() - wall) * 1e6)
        return made


def quantile(spans: list[float], part: float) -> float:
    """The span that this part of all does not exceed."""
    return sorted(spans)[min(len(spans) - 1, int(len(spans) * part))]


def decide(make: _Maker, waiting: int, decisions: int) -> tuple[Spans, Spans]:
    """Decisions, and what comes between them (a call ends, another comes)."""
    chance = random.Random(1)
    lane, choosing, moving = Lane(_SLOTS), Spans(), Spans()
    for pid in range(waiting):
        lane.add(make(chance, pid))
    gc.collect()
    flying: deque[int] = deque()

    def move(pid: int) -> None:
        if len(flying) == _SLOTS:
            ended = flying.popleft()
            lane.settle(ended, Usage(chance.randrange(300, 4_000), 200, chance.randrange(1, 400)))
            lane.release(ended)
        lane.add(make(chance, pid))

    for number in range(decisions):
        moving.time(lambda: move(waiting + number))  # noqa: B023 - it is called at once
        chosen = choosing.time(lambda: lane.choose(number))  # noqa: B023
        assert chosen is not None
        flying.append(chosen.pid)
    return choosing, moving


def first_come(waiting: int, decisions: int) -> Spans:
    """The same with a deque."""
    chance, spans = random.Random(1), Spans()
    queue = deque(_mixed(chance, pid) for pid in range(waiting))
    for number in range(decisions):
        queue.append(_mixed(chance, waiting + number))
        spans.time(queue.popleft)
    return spans


def main(quick: bool) -> Report:
    """Both worlds."""
    waiting, decisions = (300, 500) if quick else (10_000, 20_000)
    figures: list[Figure] = []
    for name, make in (("mixed", _mixed), ("one family", _family)):
        choosing, moving = decide(make, waiting, decisions)
        figures += [
            Figure(f"{name}: decision, median", quantile(choosing.wall, 0.5), "us"),
            below(f"{name}: decision, p99", quantile(choosing.wall, 0.99), "us", GOAL_US),
            Figure(f"{name}: decision, p99 of processor time", quantile(choosing.processor, 0.99), "us"),
            Figure(f"{name}: add, settle, release, p99", quantile(moving.wall, 0.99), "us"),
        ]
    figures.append(Figure("first come, first served: p99", quantile(first_come(waiting, decisions).wall, 0.99), "us"))
    return Report("decide", tuple(figures), (f"{decisions:,} decisions, {waiting:,} calls wait at each of them",))
