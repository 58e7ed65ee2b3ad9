"""Full turns a second of agents with a tool over HTTP: Mains beside what users would pick instead.

Everybody calls the same upstream (`bench.contest.upstream`: the OpenAI dialect, no latency, another process). An agent
makes five turns with one tool call each and a final one; 20 are at work at once. Each rival's run is followed by one of
Mains, so that a ratio is of two runs side by side. CPU is of the contestant's own process, with all its threads. Bytes
a turn are of the databases on the disk, for agents of 5, 20 and 80 tool turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from bench import machine
from bench.child import in_child
from bench.contest import ceiling, ring
from bench.contest.ring import Contestant
from bench.report import Figure, Report, at_least, below

GOAL_RATIO = 8
GOAL_CPU_MS = 1.2
GOAL_GROWTH = 1.1  # bytes a turn at 80 turns against 5: "constant"
TURNS = 5
LENGTHS = (5, 20, 80)
_FEW = 4  # agents at once where only bytes are of interest


class Size(NamedTuple):
    """Rounds; agents in a rival's and in a Mains run at 20; how many at once for Mains alone; lengths for bytes."""

    rounds: int
    at_once: int
    slow: int
    fast: int
    crowds: tuple[int, ...]
    lengths: tuple[int, ...]


FULL = Size(3, 20, 60, 400, (100, 1_000), LENGTHS)
QUICK = Size(1, 4, 4, 8, (8,), (5, 20))
AGAINST = (ring.LANGGRAPH, ring.LANGGRAPH_ASYNC, ring.LANGGRAPH_LEAN, ring.PYDANTIC, ring.DBOS, ring.BARE)
GOALS = {ring.LANGGRAPH: GOAL_RATIO, ring.LANGGRAPH_ASYNC: GOAL_RATIO}


class Pairs:
    """The runs of one contestant, each beside one of Mains."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.theirs: list[dict[str, Any]] = []
        self.ours: list[dict[str, Any]] = []

    def figures(self) -> list[Figure]:
        """Medians, and the ratio within each pair."""
        name = self.contestant.name
        ratio = statistics.median(per_s(a) / per_s(b) for a, b in zip(self.ours, self.theirs, strict=True))
        goal = GOALS.get(self.contestant)
        what = f"Mains / {name}"
        return [
            Figure(name, statistics.median(map(per_s, self.theirs)), "turns/s"),
            Figure(f"{name}, CPU a turn", statistics.median(map(cpu_ms, self.theirs)), "ms"),
            Figure(what, ratio, "x") if goal is None else at_least(what, ratio, "x", goal),
        ]


def per_s(run: dict[str, Any]) -> float:
    """Turns a second."""
    return float(run["turns"] / run["span_s"])


def cpu_ms(run: dict[str, Any]) -> float:
    """CPU time of a turn, in milliseconds."""
    return float(1e3 * run["cpu_s"] / run["turns"])


def growth(bytes_a_turn: dict[int, float]) -> float:
    """Bytes a turn of the longest agents against the shortest."""
    return bytes_a_turn[max(bytes_a_turn)] / bytes_a_turn[min(bytes_a_turn)]


def main(quick: bool) -> Report:
    """Speed in pairs, Mains in larger crowds, DBOS's empty steps, bytes; the upstream's ceiling and fsync beside it."""
    size = QUICK if quick else FULL
    with ring.upstream() as port, machine.scratch() as folder:
        fsync_us = machine.fsync_us(folder)
        most = float(in_child(ceiling.calls_per_s, port, size.at_once))

        def speed(contestant: Contestant, at_once: int, agents: int, turns: int = TURNS) -> dict[str, Any]:
            return ring.run(contestant, "speed", port, turns=turns, at_once=at_once, agents=agents)

        pairs = [Pairs(each) for each in AGAINST]
        for _ in range(size.rounds):
            for pair in pairs:
                agents = size.slow if pair.contestant.rival else size.fast
                pair.theirs.append(speed(pair.contestant, size.at_once, agents))
                pair.ours.append(speed(ring.MAINS, size.at_once, size.fast))
        crowds = _crowds(size, speed)
        sizes = _bytes(size, speed)
    ours = [run for pair in pairs for run in pair.ours]
    figures = [
        Figure("Mains", statistics.median(map(per_s, ours)), "turns/s"),
        below("Mains, CPU a turn", statistics.median(map(cpu_ms, ours)), "ms", GOAL_CPU_MS),
        *(figure for pair in pairs for figure in pair.figures()),
        *crowds,
        *sizes,
        Figure("upstream alone", most, "calls/s"),
        Figure("fsync", fsync_us, "us"),
    ]
    return Report("rivals", tuple(figures), _notes(size))


Measure = Callable[..., dict[str, Any]]


def _crowds(size: Size, speed: Measure) -> list[Figure]:
    """Mains with more processes, and DBOS's empty steps beside the first crowd."""
    figures: list[Figure] = []
    for at_once in size.crowds:
        runs = [speed(ring.MAINS, at_once, max(at_once, size.fast)) for _ in range(size.rounds)]
        figures.append(Figure(f"Mains at {at_once:,}", statistics.median(map(per_s, runs)), "turns/s"))
        figures.append(Figure(f"Mains at {at_once:,}, CPU a turn", statistics.median(map(cpu_ms, runs)), "ms"))
        if at_once == size.crowds[0]:
            steps = [speed(ring.DBOS_STEPS, at_once, at_once) for _ in range(size.rounds)]
            each = (2 * TURNS + 1) / (TURNS + 1)  # steps of a turn
            name = f"{ring.DBOS_STEPS.name}, at {at_once:,}"
            figures.append(Figure(name, each * statistics.median(map(per_s, steps)), "steps/s"))
    return figures


def _bytes(size: Size, speed: Measure) -> list[Figure]:
    """Bytes a turn by length; what grows with the length is read and written again and again."""
    figures: list[Figure] = []
    for contestant in (ring.MAINS, ring.LANGGRAPH, ring.PYDANTIC, ring.DBOS):
        found = {turns: speed(contestant, _FEW, _FEW, turns)["bytes_a_turn"] for turns in size.lengths}
        name = contestant.name
        figures += [Figure(f"{name}, bytes a turn at {turns}", value, "bytes") for turns, value in found.items()]
        what = f"{name}, bytes at {max(found)} / {min(found)}"
        ratio = growth(found)
        figures.append(below(what, ratio, "x", GOAL_GROWTH) if contestant is ring.MAINS else Figure(what, ratio, "x"))
    return figures


def _notes(size: Size) -> tuple[str, ...]:
    return (
        f"{size.at_once} agents at once, {TURNS} turns with a tool and a final one; medians of {size.rounds} pairs",
        f"{ring.versions()}; SQLite in WAL for all; synchronous FULL for all",
    )
