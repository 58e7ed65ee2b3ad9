"""Resident memory of an agent that waits for the model: 1,000 at once, none of whose calls is answered.

The upstream holds the calls back until it is told. Memory of each is that of the whole program with all of them
waiting, above that of the same program after ten agents, divided by 1,000. For Mains twice: with a slot for each, so
that 1,000 HTTP calls are open, and with 64 slots, so that the other processes wait for a slot.
"""

from __future__ import annotations

from bench.contest import ring
from bench.report import Figure, Report, below

GOAL_KIB = 25
AGAINST = (ring.LANGGRAPH, ring.PYDANTIC, ring.DBOS)
SLOTS = 64


def main(quick: bool) -> Report:
    """Everybody once; memory hardly varies."""
    agents, slots = (30, 10) if quick else (1_000, SLOTS)
    with ring.upstream() as port:

        def kib(contestant: ring.Contestant, at_once: int) -> float:
            found = ring.run(contestant, "waiting", port, turns=5, at_once=at_once, agents=agents)
            return float(found["each"]) / 1024

        figures = [
            below(f"Mains, {agents:,} calls open", kib(ring.MAINS, agents), "KiB each", GOAL_KIB),
            below(f"Mains, {agents:,} processes, {slots} calls open", kib(ring.MAINS, slots), "KiB each", GOAL_KIB),
            *(Figure(each.name, kib(each, agents), "KiB each") for each in AGAINST),
        ]
    return Report("waiting", tuple(figures), (ring.versions(),))
